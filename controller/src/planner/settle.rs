//! What every Service gets: who has a valid address keeps it, the others wait in a queue and are served in its order.

use garpike_controller_api::config::{Families, Request, Service};
use garpike_election::{ServiceIp, ServiceKey};

use super::{Author, Completeness, Phase, Planner, Reason, Standing, Tenant, Wish};
use crate::allocator::Refusal;

/// What a Service still needs after it was asked what it has.
#[derive(Clone, Debug)]
enum Need {
    Nothing,
    /// It had addresses and may not keep them all.
    Other(Refusal),
    /// The addresses that it asks for, or some of another pool than that of those it has.
    Certain,
    /// Any address that is open to it, or one of the other family beside the one it has.
    Any,
}

impl Planner {
    /// Settles all Services: those with addresses in manifests first, the older before the younger. Nobody is given an
    /// address before everybody has been asked what he has.
    pub(super) fn settle_all(&mut self) {
        if self.phase == Phase::Listening {
            return;
        }
        let order = |tenant: &Tenant| tenant.observed.author != Author::Manifest;
        let mut keys: Vec<(&ServiceKey, &Tenant)> = self.tenants.iter().collect();
        keys.sort_by(|(a, one), (b, other)| {
            order(one).cmp(&order(other)).then_with(|| age(one, a).cmp(&age(other, b)))
        });
        let keys: Vec<ServiceKey> = keys.into_iter().map(|(key, _)| key.clone()).collect();

        let mut needy: Vec<(u8, u64, ServiceKey, Need)> = Vec::new();
        for key in keys {
            let need = self.take_stock(&key);
            let rank = match need {
                Need::Nothing => continue,
                // Who had an address goes before who never had one; who asks for a certain one before who does not.
                Need::Other(_) => 0,
                Need::Certain => 1,
                Need::Any => 2,
            };
            let turn = self.tenants.get(&key).and_then(|tenant| tenant.turn).unwrap_or(u64::MAX);
            needy.push((rank, turn, key, need));
        }
        // Stable, so the older goes first where nothing else decides.
        needy.sort_by_key(|(rank, turn, _, _)| (*rank, *turn));
        let releases = self.allocator.releases();
        for (_, _, key, need) in needy {
            self.serve(&key, need);
        }
        self.wake(releases);
    }

    /// Settles one Service.
    pub(super) fn settle(&mut self, key: &ServiceKey) {
        let need = self.take_stock(key);
        self.serve(key, need);
    }

    /// Gives what has become free to who waits for it, the longest-waiting first.
    pub(super) fn wake(&mut self, mut releases: u64) {
        while self.phase == Phase::Serving && self.allocator.releases() != releases {
            releases = self.allocator.releases();
            let mut after = None;
            while let Some((turn, key)) = self.next_in_queue(after) {
                after = Some(turn);
                self.serve(&key, Need::Any);
            }
        }
    }

    /// Asks what a Service has, and lets it keep what it may keep.
    fn take_stock(&mut self, key: &ServiceKey) -> Need {
        let Some(tenant) = self.tenants.get_mut(key) else { return Need::Nothing };
        self.dirty.insert(key.clone());
        let status_changed = std::mem::take(&mut tenant.status_changed);
        let service = match &tenant.observed.wish {
            Wish::Addresses(service) => service.clone(),
            Wish::Nothing => {
                tenant.standing = Standing::Ours;
                tenant.refusal = None;
                self.allocator.withdraw(key);
                self.leave_queue(key);
                return Need::Nothing;
            }
            Wish::Unknown => {
                // What it has stays with it, as what its status shows.
                tenant.standing = Standing::LeftAlone;
                tenant.refusal = None;
                self.allocator.withdraw(key);
                self.leave_queue(key);
                return Need::Nothing;
            }
        };
        if tenant.overwrites >= MAX_OVERWRITES {
            return Need::Nothing;
        }
        let (shown, author) = (tenant.observed.addresses.clone(), tenant.observed.author);
        let held = self.allocator.held(key).to_vec();
        if shown.is_empty() && held.is_empty() {
            self.stand(key, Standing::Ours);
            return need_of_a_new_one(&service);
        }
        let rewritten = status_changed && author == Author::Manifest;
        if held.is_empty() || rewritten {
            self.allocator.withdraw(key);
            return self.adopt(&service, &shown, author);
        }
        if status_changed && shown != held {
            if !shown.is_empty() && self.allocator.keep(&service, &shown).is_ok() {
                return self.need(&service, &shown);
            }
            if let Some(need) = self.count_overwrite(key, &shown) {
                return need;
            }
        }
        match self.allocator.keep(&service, &held) {
            Ok(()) => self.need(&service, &held),
            Err(refusal) if self.may_be_replaced(&refusal) => Need::Other(refusal),
            Err(refusal) => {
                self.leave_queue(key);
                self.refuse(key, &held, refusal);
                Need::Nothing
            }
        }
    }

    /// Takes over what the status of a Service shows that nothing is known of.
    fn adopt(&mut self, service: &Service, shown: &[ServiceIp], author: Author) -> Need {
        let adopted = match author {
            Author::Manifest => self.allocator.adopt(service, shown),
            Author::Us | Author::Another => self.allocator.keep(service, shown),
        };
        let refusal = match (adopted, author) {
            (Ok(()), Author::Manifest) => {
                self.stand(&service.key, Standing::Ours);
                self.content(&service.key);
                return Need::Nothing;
            }
            (Ok(()), Author::Us | Author::Another) => {
                self.stand(&service.key, Standing::Ours);
                return self.need(service, shown);
            }
            (Err(refusal), Author::Us) if self.may_be_replaced(&refusal) => {
                self.stand(&service.key, Standing::Ours);
                return Need::Other(refusal);
            }
            (Err(refusal), Author::Another) => Refusal::Foreign { ips: list(shown), because: Box::new(refusal) },
            (Err(refusal), Author::Us | Author::Manifest) => refusal,
        };
        self.stand(&service.key, Standing::LeftAlone);
        self.leave_queue(&service.key);
        self.refuse(&service.key, shown, refusal);
        Need::Nothing
    }

    /// What is broken cannot be the reason for two Services with one address; for all else it may be.
    fn may_be_replaced(&self, refusal: &Refusal) -> bool {
        match self.completeness {
            Completeness::Whole => true,
            Completeness::Partial => matches!(refusal, Refusal::Taken { .. } | Refusal::WrongFamilies),
        }
    }

    /// Somebody has replaced what we wrote. Says what is needed when he has done so too often.
    fn count_overwrite(&mut self, key: &ServiceKey, shown: &[ServiceIp]) -> Option<Need> {
        let tenant = self.tenants.get_mut(key)?;
        tenant.overwrites += 1;
        if tenant.overwrites < MAX_OVERWRITES {
            return None;
        }
        self.allocator.withdraw(key);
        self.stand(key, Standing::LeftAlone);
        self.leave_queue(key);
        self.refuse(key, shown, Refusal::Contested { theirs: list(shown) });
        Some(Need::Nothing)
    }

    /// What a Service needs that may keep these addresses.
    fn need(&mut self, service: &Service, has: &[ServiceIp]) -> Need {
        let satisfied = match &service.request {
            Request::Addresses { ips, .. } => ips.len() == has.len() && ips.iter().all(|ip| has.contains(ip)),
            Request::Any => true,
            Request::Invalid => false,
        };
        let in_pool = service.pool.as_ref().is_none_or(|pool| {
            self.allocator.pools().named(pool).is_some_and(|pool| has.iter().all(|ip| pool.contains(*ip)))
        });
        if !satisfied || !in_pool {
            Need::Certain
        } else if is_half(service, has) {
            Need::Any
        } else {
            self.content(&service.key);
            Need::Nothing
        }
    }

    /// Gives a Service what it needs, or a place in the queue.
    fn serve(&mut self, key: &ServiceKey, need: Need) {
        let cleared = match need {
            Need::Nothing => return,
            Need::Other(refusal) => Some(refusal),
            Need::Certain | Need::Any => None,
        };
        let Some(service) = self.tenants.get(key).and_then(Tenant::service).cloned() else { return };
        let held = self.allocator.held(key).to_vec();
        let has = match &cleared {
            // It may have been somebody else's word until now.
            Some(_) if held.is_empty() => {
                self.tenants.get(key).map(|t| t.observed.addresses.clone()).unwrap_or_default()
            }
            Some(_) | None => held,
        };
        if cleared.is_none() && is_half(&service, &has) && self.is_in_its_pool(&service, &has) {
            if self.allocator.complete(&service) {
                self.gave(key, &has);
            } else {
                // Without a second one it is content, and takes it when there is one.
                self.accept(key);
                self.join_queue(key);
            }
            return;
        }
        match self.allocator.reclaim(&service, &has) {
            Ok(ips) => {
                if let Some(refusal) = cleared.filter(|_| !has.iter().all(|ip| ips.contains(ip))) {
                    self.tell(key, Reason::ClearAssignment, format!("gives up {}: {refusal}", list(&has)));
                }
                self.gave(key, &has);
            }
            Err(refusal) => {
                if let Some(cause) = cleared {
                    self.allocator.withdraw(key);
                    self.tell(key, Reason::ClearAssignment, format!("gives up {}: {cause}", list(&has)));
                }
                let left = self.allocator.held(key).to_vec();
                self.join_queue(key);
                self.refuse(key, &left, refusal);
            }
        }
        self.dirty.insert(key.clone());
    }

    fn is_in_its_pool(&self, service: &Service, has: &[ServiceIp]) -> bool {
        service.pool.as_ref().is_none_or(|wanted| {
            has.iter().all(|ip| self.allocator.pools().containing(*ip).is_some_and(|pool| pool.name == *wanted))
        })
    }

    /// A Service has been given something.
    fn gave(&mut self, key: &ServiceKey, before: &[ServiceIp]) {
        let ips = self.allocator.held(key).to_vec();
        let pool = ips.first().and_then(|ip| self.allocator.pools().containing(*ip));
        let pool = pool.map(|pool| pool.name.to_string()).unwrap_or_default();
        if ips != before {
            let instead = if before.is_empty() { String::new() } else { format!(", it had {}", list(before)) };
            let message = format!("has {} from the pool {pool}{instead}", list(&ips));
            if let Some(tenant) = self.tenants.get_mut(key) {
                tenant.news = Some((ips.clone(), message));
            }
        }
        self.accept(key);
        self.dirty.insert(key.clone());
        if self.tenants.get(key).and_then(Tenant::service).is_some_and(|service| is_half(service, &ips)) {
            self.join_queue(key);
        } else {
            self.leave_queue(key);
        }
    }

    /// A Service lacks nothing.
    fn content(&mut self, key: &ServiceKey) {
        self.accept(key);
        self.leave_queue(key);
    }

    /// Nothing is refused to a Service.
    fn accept(&mut self, key: &ServiceKey) {
        if let Some(tenant) = self.tenants.get_mut(key) {
            tenant.refusal = None;
        }
    }

    /// A Service does not have what it asks for; `has` is what it has all the same.
    fn refuse(&mut self, key: &ServiceKey, has: &[ServiceIp], refusal: Refusal) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        let kind = |refusal: &Refusal| std::mem::discriminant(refusal);
        // Of a request that contradicts itself its object has told more: the field and the value.
        let is_news = tenant.refusal.as_ref().map(kind) != Some(kind(&refusal)) && refusal != Refusal::InvalidRequest;
        let message = if has.is_empty() {
            format!("has no address: {refusal}")
        } else {
            format!("has {} and not what it asks for: {refusal}", list(has))
        };
        tenant.refusal = Some(refusal);
        if is_news {
            let reason = if has.is_empty() { Reason::AllocationFailed } else { Reason::LoadBalancerFailed };
            self.tell(key, reason, message);
        }
    }

    fn stand(&mut self, key: &ServiceKey, standing: Standing) {
        if let Some(tenant) = self.tenants.get_mut(key) {
            tenant.standing = standing;
        }
    }

    fn join_queue(&mut self, key: &ServiceKey) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        if tenant.turn.is_none() {
            tenant.turn = Some(self.next_turn);
            self.queue.insert(self.next_turn, key.clone());
            self.next_turn += 1;
        }
    }

    pub(super) fn leave_queue(&mut self, key: &ServiceKey) {
        if let Some(turn) = self.tenants.get_mut(key).and_then(|tenant| tenant.turn.take()) {
            self.queue.remove(&turn);
        }
    }

    fn next_in_queue(&self, after: Option<u64>) -> Option<(u64, ServiceKey)> {
        let from = after.map_or(0, |turn| turn + 1);
        self.queue.range(from..).next().map(|(turn, key)| (*turn, key.clone()))
    }
}

/// What orders Services by age; those of which nothing is known go last.
fn age<'a>(tenant: &'a Tenant, key: &'a ServiceKey) -> impl Ord + use<'a> {
    let created = tenant.service().and_then(|service| service.created.as_ref());
    (created.is_none(), created, key)
}

/// What a Service needs that has nothing.
fn need_of_a_new_one(service: &Service) -> Need {
    match &service.request {
        Request::Any => Need::Any,
        Request::Addresses { .. } | Request::Invalid => Need::Certain,
    }
}

/// Whether a Service has one family, is content with it, and would like the other one too.
fn is_half(service: &Service, has: &[ServiceIp]) -> bool {
    match service.families {
        Families::PreferDual(_) => service.request == Request::Any && has.len() == 1,
        Families::Unspecified | Families::Single(_) | Families::RequireDual => false,
    }
}

fn list(ips: &[ServiceIp]) -> String {
    if ips.is_empty() {
        return "nothing".to_owned();
    }
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// After how many overwrites by somebody else nothing is written any more. Design value: three tell a fight from a slip.
const MAX_OVERWRITES: u32 = 3;
