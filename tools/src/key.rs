//! `akv-pkcs11 key`: the life of a key, in words PKCS#11 does not have.

mod backup;
mod deleted;
mod import;
mod list;
mod make;
mod policy;
mod release;
mod show;
mod transfer;
mod view;

pub use self::show::public_key;

use crate::{
    cli::{Common, KeyCommand, PolicyCommand, Sure},
    failure::Failure,
    output::Output,
    target::{self, Wanted},
};

/// Carries a subcommand out; without one, lists.
pub fn run(
    common: &Common,
    command: Option<&KeyCommand>,
    output: &mut Output,
) -> Result<(), Failure> {
    let slot = || target::slot(common, |_| {});
    match command {
        None | Some(KeyCommand::List { deleted: false }) => list::keys(&slot()?, output),
        Some(KeyCommand::List { deleted: true }) => deleted::list(&slot()?, output),
        Some(KeyCommand::Show { key, pem }) => {
            show::run(&slot()?, &Wanted::parse(&key.key), *pem, output)
        }
        Some(KeyCommand::Generate { label, kind, properties }) => {
            let parameters = make::create_parameters(kind, properties)?;
            let slot = target::slot(common, |token| make::adjust(token, properties))?;
            make::generate(&slot, label, parameters, properties, output)
        }
        Some(KeyCommand::Import { label, pem, kek, byok, aes, r#type, curve, properties }) => {
            let brought = import::Brought::read(
                pem.as_deref(),
                byok.as_deref().map(|file| (file, *r#type, *curve)),
                aes.as_deref(),
            )?;
            let slot = target::slot(common, |token| make::adjust(token, properties))?;
            let kek = kek.as_deref().map(Wanted::parse);
            import::run(&slot, label, brought, kek.as_ref(), properties, output)
        }
        Some(KeyCommand::Backup { key, output: to }) => {
            backup::backup(&slot()?, &Wanted::parse(&key.key), to, output)
        }
        Some(KeyCommand::Restore { file }) => backup::restore(common, file, output),
        Some(KeyCommand::Rotate { key }) => {
            policy::rotate(&slot()?, &Wanted::parse(&key.key), output)
        }
        Some(KeyCommand::RotationPolicy { command: PolicyCommand::Show { key } }) => {
            policy::show(&slot()?, &Wanted::parse(&key.key), output)
        }
        Some(KeyCommand::RotationPolicy { command: command @ PolicyCommand::Set { key, .. } }) => {
            let wanted = policy::wanted(command)?;
            policy::set(&slot()?, &Wanted::parse(&key.key), wanted, output)
        }
        Some(KeyCommand::Release { key, target, nonce, encryption, output: to }) => {
            let parameters = release::parameters(target, nonce.clone(), encryption.clone())?;
            release::run(&slot()?, &Wanted::parse(&key.key), &parameters, to, output)
        }
        Some(KeyCommand::Delete { key, sure }) => {
            confirmed(sure, "deletes all versions of", &key.key)?;
            deleted::delete(&slot()?, &Wanted::parse(&key.key), output)
        }
        Some(KeyCommand::Recover { key }) => {
            deleted::recover(&slot()?, &Wanted::parse(&key.key), output)
        }
        Some(KeyCommand::Purge { key, sure }) => {
            confirmed(sure, "destroys for ever", &key.key)?;
            deleted::purge(&slot()?, &Wanted::parse(&key.key), output)
        }
    }
}

fn confirmed(sure: &Sure, does: &str, key: &str) -> Result<(), Failure> {
    if sure.yes {
        return Ok(());
    }
    Err(Failure::usage(format!("this {does} '{key}': say --yes if that is what you want")))
}
