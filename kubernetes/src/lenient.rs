//! Objects of which one that is broken must not hide the others.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// A custom resource, or what is wrong with its shape: it may have been written before its definition said how it has to
/// be. One without `spec` means the same as one with an empty `spec`; a `status` that cannot be read is none.
#[derive(Clone, Debug)]
pub struct Lenient<K> {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The object, or what is wrong with it.
    pub object: Result<K, String>,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        fields.entry("spec").or_insert_with(|| Value::Object(Map::new()));
        let metadata = fields.get("metadata").cloned().unwrap_or_default();
        let metadata = serde_json::from_value(metadata).map_err(D::Error::custom)?;
        let object = serde_json::from_value(Value::Object(fields.clone())).or_else(|_| {
            fields.remove("status");
            serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
        });
        Ok(Self { metadata, object })
    }
}

impl<K: Resource> From<K> for Lenient<K> {
    fn from(object: K) -> Self {
        Self { metadata: object.meta().clone(), object: Ok(object) }
    }
}

impl<K: Resource> Resource for Lenient<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use garpike_controller_api::{IPAddressPool, L2Advertisement};
    use kube::core::ObjectList;
    use serde_json::json;

    use super::*;

    #[test]
    fn one_that_is_broken_does_not_hide_the_others() {
        let status = json!({"assignedIPv4": 1, "assignedIPv6": 0, "availableIPv4": 255, "availableIPv6": 0});
        let list = json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPoolList", "metadata": {"resourceVersion": "7"},
            "items": [
                {"metadata": {"name": "good"}, "spec": {"addresses": ["10.0.0.0/24"]}, "status": status},
                {"metadata": {"name": "odd"}, "spec": {"addresses": ["10.0.1.0/24"]}, "status": {"assignedIPv4": "few"}},
                {"metadata": {"name": "bad"}, "spec": {"addresses": "10.0.0.0/24"}},
            ],
        });
        let list: ObjectList<Lenient<IPAddressPool>> = serde_json::from_value(list).unwrap();

        let [good, odd, bad] = list.items.try_into().unwrap();
        let (good, odd) = (good.object.unwrap(), odd.object.unwrap());
        assert_eq!(
            (good.spec.addresses, good.status.map(|status| status.assigned_ipv4)),
            (vec!["10.0.0.0/24".to_owned()], Some(1))
        );
        assert_eq!((odd.spec.addresses, odd.status), (vec!["10.0.1.0/24".to_owned()], None));
        assert_eq!(bad.meta().name.as_deref(), Some("bad"));
        assert!(bad.object.unwrap_err().contains("expected a sequence"));
    }

    #[test]
    fn an_advertisement_without_a_spec_advertises_everything() {
        let json = json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement", "metadata": {"name": "all"},
        });
        let read: Lenient<L2Advertisement> = serde_json::from_value(json).unwrap();

        assert_eq!(read.object.unwrap().spec, Default::default());
    }
}
