//! `akv-pkcs11 doctor`: one step after the other, as a request of the module would take them, so
//! that the first one that fails is the one to be cured.

mod examine;
mod remedy;
mod report;

use akv_pkcs11::config::Config;

use self::report::{Check, Report, Status, TokenReport};
use crate::{
    cli::{Common, DoctorArgs},
    failure::Failure,
    output::Output,
    target,
};

/// Examines the configuration and its tokens. The exit code is 1 when a check failed.
pub fn run(common: &Common, args: &DoctorArgs, output: &mut Output) -> Result<(), Failure> {
    let env = target::environment(common)?;
    let mut report = match target::configuration(&env) {
        Ok(config) => {
            let tokens = target::chosen(&config, common.token.as_deref())?;
            let examined = tokens.into_iter().map(|token| TokenReport {
                token: token.label.clone(),
                endpoint: format!("https://{}:{}", token.endpoint.host, token.endpoint.port),
                service: report::service_name(token.endpoint.service),
                checks: examine::token(token, &env, common, args),
            });
            Report { configuration: found(&config), tokens: examined.collect(), ok: false }
        }
        Err(failure) => Report {
            configuration: Check::failed("configuration", failure.to_string()),
            tokens: Vec::new(),
            ok: false,
        },
    };
    let failed: Vec<String> = report
        .places()
        .filter(|(_, check)| check.status == Status::Failed)
        .map(|(place, _)| place)
        .collect();
    let all = report.places().count();
    report.ok = failed.is_empty();
    output.show(&report, Report::for_people)?;
    let Some(first) = failed.first() else { return Ok(()) };
    // What was found is on standard output already, whatever becomes of the exit code.
    output.finish()?;
    Err(Failure::new(format!("{} of {all} checks failed: begin with {first}", failed.len())))
}

fn found(config: &Config) -> Check {
    let labels: Vec<_> = config.tokens.iter().map(|token| format!("'{}'", token.label)).collect();
    let found = format!("{}: {}", config.source, labels.join(", "));
    match config.warnings.is_empty() {
        true => Check::ok("configuration", found),
        false => {
            Check::warning("configuration", format!("{found}; {}", config.warnings.join("; ")))
        }
    }
}
