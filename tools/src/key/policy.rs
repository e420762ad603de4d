//! `key rotate` and `key rotation-policy`.

use akv_pkcs11::slot::Slot;
use akv_wire::{
    LifetimeAction, LifetimeActionType, LifetimeTrigger, RotationPolicy, RotationPolicyAttributes,
};

use super::make;
use crate::{
    cli::PolicyCommand,
    failure::Failure,
    files,
    output::{Output, pairs},
    target::Wanted,
};

/// Makes a new version. Programs see it when their `cache_ttl` has passed.
pub fn rotate(slot: &Slot, wanted: &Wanted, output: &mut Output) -> Result<(), Failure> {
    let bundle = slot.vault.rotate_key(wanted.all_versions("rotation")?)?;
    make::shown(slot, &bundle, output)
}

/// Shows the policy.
pub fn show(slot: &Slot, wanted: &Wanted, output: &mut Output) -> Result<(), Failure> {
    let name = wanted.all_versions("a rotation policy")?;
    shown(name, &slot.vault.rotation_policy(name)?, output)
}

/// Replaces the policy, and shows what the service made of it.
pub fn set(
    slot: &Slot,
    wanted: &Wanted,
    policy: RotationPolicy,
    output: &mut Output,
) -> Result<(), Failure> {
    let name = wanted.all_versions("a rotation policy")?;
    shown(name, &slot.vault.set_rotation_policy(name, &policy)?, output)
}

/// The policy that the command line describes.
pub fn wanted(command: &PolicyCommand) -> Result<RotationPolicy, Failure> {
    let PolicyCommand::Set {
        expires_after,
        rotate_after,
        rotate_before_expiry,
        notify_before_expiry,
        file,
        ..
    } = command
    else {
        return Ok(RotationPolicy::default());
    };
    if let Some(file) = file {
        let text = files::read_text(file)?;
        let policy = serde_json::from_str::<RotationPolicy>(&text).map_err(|error| {
            Failure::new(format!("{} is no rotation policy: {error}", file.display()))
        })?;
        if policy.lifetime_actions.is_none() && policy.attributes.is_none() {
            return Err(Failure::new(format!(
                "{} has neither lifetimeActions nor attributes: it is no rotation policy",
                file.display()
            )));
        }
        // The identifier and the times are the service's.
        let attributes = policy.attributes.map(|attributes| RotationPolicyAttributes {
            expiry_time: attributes.expiry_time,
            ..RotationPolicyAttributes::default()
        });
        return Ok(RotationPolicy { id: None, attributes, ..policy });
    }
    let before = [("rotate", rotate_before_expiry), ("notify", notify_before_expiry)];
    if let Some((option, _)) = before.iter().find(|(_, given)| given.is_some())
        && expires_after.is_none()
    {
        return Err(Failure::usage(format!(
            "--{option}-before-expiry needs --expires-after: without it no version expires"
        )));
    }
    let action = |kind: &str, after: &Option<String>, before: &Option<String>| {
        (after.is_some() || before.is_some()).then(|| LifetimeAction {
            trigger: LifetimeTrigger {
                time_after_create: after.clone(),
                time_before_expiry: before.clone(),
            },
            action: LifetimeActionType { kind: kind.to_owned() },
        })
    };
    let actions = [
        action("Rotate", rotate_after, rotate_before_expiry),
        action("Notify", &None, notify_before_expiry),
    ];
    Ok(RotationPolicy {
        id: None,
        lifetime_actions: Some(actions.into_iter().flatten().collect()),
        attributes: Some(RotationPolicyAttributes {
            expiry_time: expires_after.clone(),
            ..RotationPolicyAttributes::default()
        }),
    })
}

fn shown(name: &str, policy: &RotationPolicy, output: &mut Output) -> Result<(), Failure> {
    output.show(policy, |policy| {
        let expiry = policy.attributes.as_ref().and_then(|all| all.expiry_time.clone());
        let mut rows = vec![
            ("name".to_owned(), name.to_owned()),
            ("expires after".to_owned(), expiry.unwrap_or_else(|| "never".to_owned())),
        ];
        for action in policy.lifetime_actions.iter().flatten() {
            let trigger = &action.trigger;
            let when = match (&trigger.time_after_create, &trigger.time_before_expiry) {
                (Some(after), _) => format!("{after} after it was made"),
                (None, Some(before)) => format!("{before} before it expires"),
                (None, None) => "-".to_owned(),
            };
            // A vault writes Rotate, a Managed HSM rotate.
            rows.push((action.action.kind.to_ascii_lowercase(), when));
        }
        pairs(rows)
    })
}
