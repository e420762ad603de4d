//! The state that requests for secrets and certificates need.

use serde_json::json;

use crate::arrange::{Arranged, Scene, done, secret};

impl Scene<'_> {
    pub(crate) fn secrets(&self, request: &mut Arranged, words: &[&str]) -> Result<(), String> {
        let (pair, session) = (self.pair, self.session);
        let path = format!("/secrets/{}", self.name);
        let list = pair.response["value"].as_array();
        match (pair.method.as_str(), pair.status, list) {
            ("PUT", 200, _) => {}
            ("PUT", 409, _) => {
                done(session.call("PUT", &path, Some(json!({"value": "x"}))).status, 200)?;
                done(session.call("DELETE", &path, None).status, 200)?;
            }
            (_, _, Some(items)) => {
                let more = pair.response["nextLink"].is_string();
                for item in items.iter().chain(more.then(|| &items[0])) {
                    let id = item["id"].as_str().unwrap_or_default();
                    let name = id.split('/').nth(4).unwrap_or_default();
                    if item["managed"] == true {
                        self.self_signed(name)?;
                    } else {
                        let path = format!("/secrets/{name}");
                        done(session.call("PUT", &path, Some(secret(item))).status, 200)?;
                    }
                }
                if more && words.len() == 1 {
                    done(
                        session.call("PUT", "/secrets/zzz", Some(json!({"value": "x"}))).status,
                        200,
                    )?;
                }
            }
            _ if pair.response["managed"] == true => {
                self.self_signed(self.name)?;
            }
            _ => {
                let mut body = secret(&pair.response);
                if pair.method == "PATCH" && request.body.is_none() {
                    request.body = Some(json!({"tags": pair.response["tags"]}));
                }
                body["attributes"]["enabled"] = json!(true);
                if pair.method == "DELETE" {
                    body["attributes"] = secret(&pair.response)["attributes"].clone();
                }
                let made = session.call("PUT", &path, Some(body));
                done(made.status, 200)?;
                self.put_version(request, &made.json["id"]);
            }
        }
        Ok(())
    }

    /// The import bodies are cut or lack the private parts: another PFX is imported.
    pub(crate) fn import_body(&self, request: &mut Arranged) -> Result<(), String> {
        let pfx = self.pfx()?;
        if let Some(body) = &mut request.body {
            body["value"] = json!(pfx);
            body["pwd"] = json!("");
        }
        Ok(())
    }

    /// A PFX whose certificate says what the recorded one says, made in the same vault.
    pub(crate) fn pfx(&self) -> Result<String, String> {
        let mut content = self.pair.response["policy"]["x509_props"].clone();
        // The last month of a recorded validity is a begun one.
        let months = content["validity_months"].as_u64().unwrap_or(12);
        content["validity_months"] = json!(months - 1);
        let policy = json!({"x509_props": content, "issuer": {"name": "Self"}});
        let created = self.session.post("/certificates/template/create", json!({"policy": policy}));
        if created.status != 202 {
            return Err(format!("template: {}", created.text));
        }
        self.session.get("/certificates/template/pending");
        let secret = self.session.get("/secrets/template");
        Ok(secret.json["value"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn self_signed(&self, name: &str) -> Result<(), String> {
        let recorded = &self.pair.response["policy"];
        let mut policy = json!({
            "x509_props": {"subject": "CN=example"}, "issuer": {"name": "Self"},
        });
        for member in ["key_props", "secret_props", "x509_props", "lifetime_actions", "issuer"] {
            if recorded[member].is_object() || recorded[member].is_array() {
                policy[member] = recorded[member].clone();
            }
        }
        let own = |name: &str| name.eq_ignore_ascii_case("self");
        if !policy["issuer"]["name"].as_str().is_some_and(own) {
            policy["issuer"]["name"] = json!("Self");
        }
        let tags = self.pair.response.get("tags").cloned().unwrap_or_default();
        let attributes = json!({"enabled": self.pair.response["attributes"]["enabled"]});
        let body = json!({"policy": policy, "tags": tags, "attributes": attributes});
        done(self.session.post(&format!("/certificates/{name}/create"), body).status, 202)?;
        let pending = self.session.get(&format!("/certificates/{name}/pending"));
        done(pending.status, 200)
    }

    pub(crate) fn certificates(
        &self,
        request: &mut Arranged,
        words: &[&str],
    ) -> Result<(), String> {
        let (pair, session) = (self.pair, self.session);
        let deleted = words[0] == "deletedcertificates";
        if let Some(items) = pair.response["value"].as_array() {
            let more = pair.response["nextLink"].is_string();
            for item in items {
                let id = item["id"].as_str().unwrap_or_default();
                let name = id.split('/').nth(4).unwrap_or_default();
                let body = json!({
                    "policy": {"x509_props": {"subject": "CN=x"}, "issuer": {"name": "Self"}},
                    "tags": item.get("tags").cloned().unwrap_or_default(),
                });
                let path = format!("/certificates/{name}");
                done(session.post(&format!("{path}/create"), body).status, 202)?;
                done(session.get(&path).status, 200)?;
                if deleted {
                    done(session.call("DELETE", &path, None).status, 200)?;
                }
            }
            if more {
                let name = if words.len() == 1 { "zzz" } else { self.name };
                self.self_signed(name)?;
                if deleted {
                    done(session.call("DELETE", "/certificates/zzz", None).status, 200)?;
                }
            }
            return Ok(());
        }
        if pair.status == 404 {
            return Ok(());
        }
        let policy_only = words.last() == Some(&"policy");
        if policy_only {
            let mut policy = pair.response.clone();
            for member in ["id", "attributes"] {
                policy.as_object_mut().ok_or("policy")?.remove(member);
            }
            let body = json!({"policy": policy});
            let path = format!("/certificates/{}/create", self.name);
            let made = session.post(&path, body);
            if made.status != 202 {
                return Err(format!("create: {}", made.text));
            }
        } else if pair.response.get("pending").is_none() && pair.response.get("cer").is_some() {
            // Without an operation it was imported.
            let mut policy = pair.response["policy"].clone();
            policy.as_object_mut().ok_or("policy")?.remove("attributes");
            let body = json!({"value": self.pfx()?, "policy": policy});
            let path = format!("/certificates/{}/import", self.name);
            done(session.post(&path, body).status, 200)?;
        } else {
            self.self_signed(self.name)?;
        }
        let made = session.get(&format!("/certificates/{}", self.name));
        self.put_version(request, &made.json["id"]);
        if deleted {
            let path = format!("/certificates/{}", self.name);
            done(session.call("DELETE", &path, None).status, 200)?;
        }
        if pair.method == "PATCH" && request.body.is_none() {
            request.body = Some(json!({
                "attributes": {"enabled": pair.response["attributes"]["enabled"]},
                "tags": pair.response["tags"],
            }));
        }
        Ok(())
    }
}
