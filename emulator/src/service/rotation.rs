//! Rotation and rotation policies.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use akv_wire::{
    KeyType, LifetimeAction, LifetimeActionType, LifetimeTrigger, RotationPolicy,
    RotationPolicyAttributes,
};

use super::objects::{add_version, live, live_mut, not_found};
use super::{Outcome, Request, Service};
use crate::body;
use crate::config::ServiceKind;
use crate::crypto::{Material, add_months};
use crate::refusal::{Noun, Refusal};
use crate::state::{KeyVersion, Life, Object};

/// Notice before expiry that a vault adds to every policy.
const NOTICE: &str = "P30D";

impl Service {
    pub(super) async fn rotate_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let (name, version) = self.rotate(request.name).await?;
        self.show_key(request, &name, &version)
    }

    /// Rotates the keys whose policy says that it is time. One caller does it, others wait: they
    /// must not find the old version current, nor rotate twice.
    pub(super) async fn rotate_due(&self) {
        if self.clock.now() < self.next_rotation.load(Ordering::Relaxed) {
            return;
        }
        let _turn = self.rotations.lock().await;
        for name in self.due() {
            let rotated = self.rotate(&name).await.map(drop);
            if let Err(refusal) = rotated.and_then(|()| self.save().map_err(Refusal::Internal)) {
                eprintln!("akv-emulator: rotation of '{name}' in {}: {refusal:?}", self.label());
            }
        }
        self.plan_rotations();
    }

    /// Finds out when the next key is due, so that requests until then need not look. To be called
    /// after every change.
    pub(super) fn plan_rotations(&self) {
        // The lock is held until the time is noted: whoever changes keys meanwhile plans later.
        let state = self.state.read();
        let next = state.keys.values().filter_map(due_at).min();
        self.next_rotation.store(next.unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    fn due(&self) -> Vec<String> {
        let now = self.clock.now();
        let state = self.state.read();
        let due = state.keys.values().filter(|object| due_at(object).is_some_and(|at| at <= now));
        due.map(|object| object.name.clone()).collect()
    }

    /// Adds a version of the same kind, which expires as the policy says.
    async fn rotate(&self, name: &str) -> Result<(String, KeyVersion), Refusal> {
        let (name, current, policy) = {
            let state = self.state.read();
            let object = live(&state.keys, name, "", self.clock.now());
            // Recorded: a Managed HSM says "not found" twice here.
            let object = object.map_err(|_| Refusal::NotFound {
                noun: Noun::Key,
                id: name.to_owned(),
                doubled: true,
            })?;
            let current = object.version("").ok_or_else(|| not_found::<KeyVersion>(name, ""))?;
            (object.name.clone(), current.clone(), object.extra.rotation.clone())
        };
        let old = Arc::clone(&current.material);
        let material = tokio::task::spawn_blocking(move || old.another())
            .await
            .map_err(|error| Refusal::Internal(format!("key generation: {error}")))??;
        let now = self.clock.now();
        let life = policy
            .and_then(|policy| policy.attributes)
            .and_then(|attributes| attributes.expiry_time)
            .and_then(|text| Duration::parse(&text));
        let version = KeyVersion {
            id: self.dialect.version_id(),
            material: Arc::new(material),
            life: Life::new(now, true, None, life.map(|life| life.after(now))),
            ..current
        };
        {
            let mut state = self.state.write();
            live_mut(&mut state.keys, &name, "", now)?;
            self.check_room(&state.keys, &name)?;
            let sequence = state.next_sequence();
            add_version(&mut state.keys, &name, version.clone(), sequence);
        }
        Ok((name, version))
    }

    pub(super) fn rotation_policy(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let policy = {
            let state = self.state.read();
            let object = live(&state.keys, request.name, "", self.clock.now())?;
            let stored = object.extra.rotation.clone().unwrap_or_default();
            self.shown_rotation(request, &object.name, stored)
        };
        self.ok(&policy)
    }

    pub(super) fn set_rotation_policy(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let mut asked: RotationPolicy = body::read(&request.call.body, body::ROTATION_POLICY)?;
        check(&asked)?;
        let now = self.clock.now();
        let policy = {
            let mut state = self.state.write();
            let object = live_mut(&mut state.keys, request.name, "", now)?;
            let created = object
                .extra
                .rotation
                .as_ref()
                .and_then(|old| old.attributes.as_ref())
                .and_then(|attributes| attributes.created);
            asked.id = None;
            let attributes = asked.attributes.get_or_insert_default();
            attributes.created = created.or(Some(now));
            attributes.updated = Some(now);
            object.extra.rotation = Some(asked.clone());
            self.shown_rotation(request, &object.name, asked)
        };
        self.ok(&policy)
    }

    /// Recorded: a vault writes actions in title case, adds a notice and gives an absolute id; a
    /// Managed HSM repeats what it was told.
    fn shown_rotation(
        &self,
        request: &Request<'_>,
        name: &str,
        mut policy: RotationPolicy,
    ) -> RotationPolicy {
        let path = format!("keys/{name}/rotationpolicy");
        let actions = policy.lifetime_actions.get_or_insert_default();
        policy.attributes.get_or_insert(RotationPolicyAttributes::default());
        if self.kind == ServiceKind::ManagedHsm {
            policy.id = Some(path);
            return policy;
        }
        policy.id = Some(format!("https://{}/{path}", request.call.authority));
        for action in actions.iter_mut() {
            let title = if action.is("rotate") { "Rotate" } else { "Notify" };
            action.action.kind = title.to_owned();
        }
        if !actions.iter().any(|action| action.is("notify")) {
            actions.push(LifetimeAction {
                trigger: LifetimeTrigger {
                    time_before_expiry: Some(NOTICE.to_owned()),
                    time_after_create: None,
                },
                action: LifetimeActionType { kind: "Notify".to_owned() },
            });
        }
        policy
    }
}

/// When the first `Rotate` action's time comes for the current version of a live key.
fn due_at(object: &Object<KeyVersion>) -> Option<i64> {
    if object.deleted.is_some() {
        return None;
    }
    let (policy, current) = (object.extra.rotation.as_ref()?, object.version("")?);
    let actions = policy.lifetime_actions.iter().flatten().filter(|action| action.is("rotate"));
    let times = actions.filter_map(|action| {
        let trigger = &action.trigger;
        if let Some(text) = &trigger.time_after_create {
            return Some(Duration::parse(text)?.after(current.life.created));
        }
        let before = Duration::parse(trigger.time_before_expiry.as_ref()?)?;
        Some(current.life.exp? - before.after(0))
    });
    times.min().map(|time| time.max(object.recovering_until))
}

trait Kind {
    fn is(&self, kind: &str) -> bool;
}

impl Kind for LifetimeAction {
    fn is(&self, kind: &str) -> bool {
        self.action.kind.eq_ignore_ascii_case(kind)
    }
}

fn check(policy: &RotationPolicy) -> Result<(), Refusal> {
    let refused = |what: &str| Refusal::BadParameter(format!("Rotation policy: {what}\r\n"));
    let expiry = policy.attributes.as_ref().and_then(|given| given.expiry_time.as_deref());
    let expiry = match expiry {
        None => None,
        Some(text) => {
            let duration = Duration::parse(text).ok_or_else(|| {
                refused("expiryTime is no ISO 8601 duration of days, months or years")
            })?;
            if duration.after(0) < 28 * 86_400 {
                return Err(refused("expiryTime is less than 28 days"));
            }
            Some(duration)
        }
    };
    for action in policy.lifetime_actions.iter().flatten() {
        if !action.is("rotate") && !action.is("notify") {
            return Err(refused("an action's type is Rotate or Notify"));
        }
        let trigger = &action.trigger;
        let (text, before) = match (&trigger.time_after_create, &trigger.time_before_expiry) {
            (Some(text), None) => (text, false),
            (None, Some(text)) => (text, true),
            _ => return Err(refused("a trigger has one of timeAfterCreate and timeBeforeExpiry")),
        };
        let Some(duration) = Duration::parse(text) else {
            return Err(refused("a trigger's time is no ISO 8601 duration"));
        };
        if action.is("notify") && !before {
            return Err(refused("Notify needs timeBeforeExpiry"));
        }
        match expiry {
            None if before && action.is("rotate") => {
                return Err(refused("timeBeforeExpiry needs expiryTime"));
            }
            Some(expiry) if duration.after(0) >= expiry.after(0) => {
                return Err(refused("a trigger's time is not less than expiryTime"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// An ISO 8601 duration of whole years, months and days.
#[derive(Clone, Copy)]
struct Duration {
    months: i64,
    days: i64,
}

impl Duration {
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('P')?;
        let mut duration = Self { months: 0, days: 0 };
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            let number: i64 = rest[..end].parse().ok().filter(|number| *number < 10_000)?;
            match &rest[end..=end] {
                "Y" => duration.months += 12 * number,
                "M" => duration.months += number,
                "W" => duration.days += 7 * number,
                "D" => duration.days += number,
                _ => return None,
            }
            rest = &rest[end + 1..];
        }
        Some(duration)
    }

    fn after(self, from: i64) -> i64 {
        add_months(from, self.months) + self.days * 86_400
    }
}

impl Material {
    /// New material of the same kind and size.
    fn another(&self) -> Result<Self, openssl::error::ErrorStack> {
        match (self, self.bits()) {
            (Self::Ec { curve, public, .. }, _) => {
                let another = Self::generate_ec(*curve)?;
                Ok(if public.is_legacy() { another.with_legacy_curve() } else { another })
            }
            (Self::Oct(_), Some(bits)) => Self::generate_oct(bits),
            (_, bits) => {
                debug_assert_eq!(self.key_type(false), KeyType::Rsa);
                Self::generate_rsa(bits.unwrap_or(2048), 65537)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Duration;

    #[test]
    fn durations_are_iso_8601() {
        let seconds = |text| Duration::parse(text).map(|duration: Duration| duration.after(0));
        assert_eq!(seconds("P90D"), Some(90 * 86_400));
        assert_eq!(seconds("P1Y"), Some(365 * 86_400));
        assert_eq!(seconds("P1M1D"), Some(32 * 86_400));
        for bad in ["", "P", "90D", "PD", "P1H", "P-1D", "P1"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
