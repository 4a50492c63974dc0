//! The kinds that are followed, and how far each is known.

use std::collections::BTreeMap;

use garpike_controller_api::{ObjectKey, Source, Sourced};
use garpike_kubernetes::{Lenient, Trouble, Update};
use kube::Resource;

/// The kinds that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// IPAddressPools.
    Pools,
    /// L2Advertisements.
    Advertisements,
    /// Communities.
    Communities,
    /// Namespaces.
    Namespaces,
    /// Services.
    Services,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::Pools, Self::Advertisements, Self::Communities, Self::Namespaces, Self::Services];

    /// As in Kubernetes.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pools => "IPAddressPools",
            Self::Advertisements => "L2Advertisements",
            Self::Communities => "Communities",
            Self::Namespaces => "Namespaces",
            Self::Services => "Services",
        }
    }
}

/// What is known of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Knowledge {
    /// Whether all of it was told once.
    pub(super) listed: bool,
    /// Why it cannot be read.
    pub(super) trouble: Option<Trouble>,
    /// Its objects that cannot be read, each with what is wrong.
    pub(super) broken: BTreeMap<ObjectKey, String>,
}

/// Whether all of a kind had been told before an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Before,
    First,
}

/// Takes an update into the objects of a kind. Of those that cannot be read, it keeps what is wrong.
pub(super) fn take<K: Resource>(
    objects: &mut BTreeMap<ObjectKey, Sourced<K>>,
    update: Update<Lenient<K>>,
    knowledge: Option<&mut Knowledge>,
) -> Listed {
    let Some(knowledge) = knowledge else { return Listed::Before };
    let before = knowledge.listed;
    knowledge.trouble = None;
    let applied = match update {
        Update::All(all) => {
            objects.clear();
            knowledge.broken.clear();
            all
        }
        Update::Applied(lenient) => vec![lenient],
        Update::Gone(lenient) => {
            let key = key_of(&lenient);
            objects.remove(&key);
            knowledge.broken.remove(&key);
            Vec::new()
        }
        Update::Trouble(trouble) => {
            knowledge.trouble = Some(trouble);
            Vec::new()
        }
    };
    for lenient in applied {
        let key = key_of(&lenient);
        match lenient.object {
            Ok(object) => {
                knowledge.broken.remove(&key);
                objects.insert(key, Sourced { object, source: Source::default() });
            }
            Err(error) => {
                objects.remove(&key);
                knowledge.broken.insert(key, error);
            }
        }
    }
    knowledge.listed |= knowledge.trouble.is_none();
    // A kind that cannot be read decides as much as one that was.
    if before && knowledge.listed { Listed::Before } else { Listed::First }
}

fn key_of<K: Resource>(object: &K) -> ObjectKey {
    let meta = object.meta();
    let namespace = meta.namespace.clone().unwrap_or_default();
    ObjectKey { namespace, name: meta.name.clone().unwrap_or_default() }
}
