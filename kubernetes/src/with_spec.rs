//! Objects that people may write without `spec`.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// An object whose missing `spec` is read as an empty one; a derived custom resource alone cannot be read without, and one
/// such object would stop the watch of its kind.
#[derive(Clone, Debug)]
pub struct WithSpec<K>(pub K);

impl<'de, K: DeserializeOwned> Deserialize<'de> for WithSpec<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        if let Some(fields) = value.as_object_mut() {
            fields.entry("spec").or_insert_with(|| Value::Object(Map::new()));
        }
        K::deserialize(value).map(Self).map_err(D::Error::custom)
    }
}

impl<K: Resource> Resource for WithSpec<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(kind: &K::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &K::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &K::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &K::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use garpike_controller_api::L2Advertisement;

    use super::*;

    #[test]
    fn an_advertisement_without_spec_is_one_for_all_pools() {
        let text = r#"{"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement", "metadata": {"name": "all"}}"#;

        let WithSpec::<L2Advertisement>(object) = serde_json::from_str(text).unwrap();

        assert_eq!(object.metadata.name.as_deref(), Some("all"));
        assert!(object.spec.ip_address_pools.is_empty());
    }
}
