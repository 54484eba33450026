//! The properties files of Kafka's tools (`--command-config`, `client.properties`).

use std::time::Duration;

use clap::ValueEnum as _;

use super::{
    Mechanism,
    access::{Access, Identity, Login, Roots, TlsAccess},
    jaas,
};

/// Returns what a file says, and the keys that have no meaning here.
///
/// The error names the key. What would change who can read or forge the traffic is never ignored.
pub(super) fn access(text: &str) -> Result<(Access, Vec<String>), String> {
    let mut file = File::new(text)?;
    let mut access = Access::default();
    if let Some(brokers) = file.take("bootstrap.servers") {
        access.brokers = brokers
            .split(',')
            .map(|broker| broker.trim().to_owned())
            .filter(|broker| !broker.is_empty())
            .collect();
    }
    access.client_id = file.take("client.id");
    if let Some(ms) = file.take("default.api.timeout.ms") {
        let parsed = ms.parse().ok().filter(|ms| *ms > 0);
        let ms =
            parsed.ok_or_else(|| format!("default.api.timeout.ms: {ms:?} is no time in milliseconds"))?;
        access.timeout = Some(Duration::from_millis(ms));
    }
    let (with_tls, with_sasl) = protocol(file.take("security.protocol"))?;
    let tls = tls(&mut file)?;
    access.tls = with_tls.then_some(tls);
    let sasl = sasl(&mut file, with_sasl)?;
    if let Some((mechanism, login)) = sasl.filter(|_| with_sasl) {
        (access.mechanism, access.login) = (Some(mechanism), login);
    }
    let rest: Vec<String> = file.entries.into_iter().map(|(key, _)| key).collect();
    match rest.iter().find(|key| ["ssl.", "sasl.", "security."].iter().any(|part| key.starts_with(part))) {
        Some(key) => Err(format!("{key} is not supported")),
        None => Ok((access, rest)),
    }
}

/// Whether there is TLS, and SASL.
fn protocol(protocol: Option<String>) -> Result<(bool, bool), String> {
    match protocol.as_deref().map(str::to_ascii_uppercase).as_deref() {
        None | Some("PLAINTEXT") => Ok((false, false)),
        Some("SSL") => Ok((true, false)),
        Some("SASL_PLAINTEXT") => Ok((false, true)),
        Some("SASL_SSL") => Ok((true, true)),
        Some(other) => Err(format!(
            "security.protocol: {other:?} is none of PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL"
        )),
    }
}

fn tls(file: &mut File) -> Result<TlsAccess, String> {
    let location = file.take("ssl.truststore.location");
    let certificates = file.take("ssl.truststore.certificates");
    pem_only(file, "ssl.truststore", location.is_some() || certificates.is_some())?;
    let roots = match (location, certificates) {
        (Some(location), None) => Roots::File(location.into()),
        (None, Some(pem)) => Roots::Pem(pem),
        (None, None) => Roots::Platform,
        (Some(_), Some(_)) => {
            return Err("ssl.truststore.location and .certificates exclude each other".to_owned());
        }
    };
    let location = file.take("ssl.keystore.location");
    let (chain, key) = (file.take("ssl.keystore.certificate.chain"), file.take("ssl.keystore.key"));
    pem_only(file, "ssl.keystore", location.is_some() || chain.is_some())?;
    let identity = match (location, chain, key) {
        (Some(location), None, None) => {
            Some(Identity::Files { cert: location.clone().into(), key: location.into() })
        }
        (None, Some(cert), Some(key)) => Some(Identity::Pem { cert, key }),
        (None, None, None) => None,
        _ => {
            return Err("ssl.keystore takes either .location or both .certificate.chain and .key".to_owned());
        }
    };
    // The name is always verified.
    match file.take("ssl.endpoint.identification.algorithm").as_deref() {
        None | Some("https") => {}
        Some(other) => {
            return Err(format!(
                "ssl.endpoint.identification.algorithm: {other:?} is not supported, only https"
            ));
        }
    }
    Ok(TlsAccess { roots, identity })
}

/// Takes the type of a store, which has to be PEM if there is one.
fn pem_only(file: &mut File, store: &str, is_used: bool) -> Result<(), String> {
    let key = format!("{store}.type");
    match file.take(&key).as_deref() {
        Some("PEM") => Ok(()),
        None if !is_used => Ok(()),
        other => Err(format!(
            "{key}: {} is not supported, only PEM (keytool and openssl pkcs12 convert it)",
            other.unwrap_or("JKS, the default,")
        )),
    }
}

fn sasl(file: &mut File, is_used: bool) -> Result<Option<(Mechanism, Option<Login>)>, String> {
    let mechanism = file.take("sasl.mechanism");
    let jaas = file.take("sasl.jaas.config");
    if !is_used {
        return Ok(None);
    }
    let Some(mechanism) = mechanism else {
        return Err("sasl.mechanism is missing; Kafka's default, GSSAPI, is not supported".to_owned());
    };
    let mechanism = Mechanism::from_str(&mechanism, true).map_err(|_| {
        format!(
            "sasl.mechanism: {mechanism:?} is not supported, only PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and \
                 OAUTHBEARER"
        )
    })?;
    let login = match jaas {
        Some(jaas) if mechanism != Mechanism::OauthBearer => {
            let (user, password) =
                jaas::login(&jaas).map_err(|problem| format!("sasl.jaas.config: {problem}"))?;
            Some(Login::Password { user, password })
        }
        // A token comes from elsewhere.
        _ => None,
    };
    Ok(Some((mechanism, login)))
}

/// The entries of a file that nobody has taken yet.
struct File {
    entries: Vec<(String, String)>,
}

impl File {
    /// Reads the format of `java.util.Properties`. Of a key that is there twice, the last one counts.
    fn new(text: &str) -> Result<Self, String> {
        let mut entries: Vec<(String, String)> = Vec::new();
        // The mark of an editor would be a part of the first key, and hide it.
        let mut lines = text.trim_start_matches('\u{feff}').lines();
        while let Some(line) = lines.next() {
            let mut line = line.trim_start().to_owned();
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            while is_continued(&line) {
                line.pop();
                line.push_str(lines.next().unwrap_or_default().trim_start());
            }
            let (key, value) = split(&line);
            let entry = (unescaped(key)?, unescaped(value)?);
            entries.retain(|(key, _)| *key != entry.0);
            entries.push(entry);
        }
        Ok(Self { entries })
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let index = self.entries.iter().position(|(found, _)| found == key)?;
        let value = self.entries.remove(index).1;
        Some(value.trim_end().to_owned())
    }
}

/// Whether a line ends with an odd number of backslashes.
fn is_continued(line: &str) -> bool {
    (line.len() - line.trim_end_matches('\\').len()) % 2 == 1
}

/// Splits at the first separator that is not escaped: `=`, `:` or white space, which may surround the others.
fn split(line: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let end = line.find(|c: char| {
        let ends = !is_escaped && (c == '=' || c == ':' || c.is_whitespace());
        is_escaped = !is_escaped && c == '\\';
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start();
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start())
}

/// Resolves escapes as `\n` and `\u00e9`.
fn unescaped(text: &str) -> Result<String, String> {
    let mut resolved = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let escaped = match c {
            '\\' => chars.next(),
            c => {
                resolved.push(c);
                continue;
            }
        };
        match escaped {
            Some('n') => resolved.push('\n'),
            Some('r') => resolved.push('\r'),
            Some('t') => resolved.push('\t'),
            Some('f') => resolved.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let c = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
                let c = c.and_then(char::from_u32);
                resolved.push(c.ok_or_else(|| format!("\\u{digits} is no character"))?);
            }
            Some(c) => resolved.push(c),
            None => {}
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_of_java() {
        let text = "# a comment\n! another\n\n a = 1 \nb:2\nc 3\nd\ne=x\\\n   y\nf\\=g=\\u00e9\\n\\\\\na=4\n";
        let file = File::new(text).unwrap();
        let entries = [("b", "2"), ("c", "3"), ("d", ""), ("e", "xy"), ("f=g", "é\n\\"), ("a", "4")];
        assert_eq!(file.entries, entries.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert!(File::new("a=\\uzzzz").is_err());
        let (access, unused) = access("\u{feff}security.protocol=SSL").unwrap();
        assert!(access.tls.is_some() && unused.is_empty());
    }

    #[test]
    fn a_file_of_a_secured_cluster() {
        let text = r#"
            bootstrap.servers = kafka-1:9093, kafka-2:9093
            security.protocol=SASL_SSL
            sasl.mechanism=SCRAM-SHA-512
            sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
                username="alice" password="secret";
            ssl.truststore.type=PEM
            ssl.truststore.location=/etc/ca.pem
            client.id=ops
            default.api.timeout.ms=5000
            group.id=x
        "#;
        let (access, unused) = access(text).unwrap();
        assert_eq!(access.brokers, ["kafka-1:9093", "kafka-2:9093"]);
        assert_eq!(
            (access.client_id.as_deref(), access.timeout),
            (Some("ops"), Some(Duration::from_secs(5)))
        );
        assert_eq!(access.mechanism, Some(Mechanism::ScramSha512));
        assert!(
            matches!(access.login, Some(Login::Password { user, password }) if user == "alice" && password == "secret")
        );
        assert!(
            matches!(access.tls, Some(TlsAccess { roots: Roots::File(file), identity: None }) if file.ends_with("ca.pem"))
        );
        assert_eq!(unused, ["group.id"]);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (text, problem) in [
            ("security.protocol=TLS", "security.protocol: \"TLS\" is none of"),
            ("security.protocol=SASL_SSL", "sasl.mechanism is missing"),
            (
                "security.protocol=SASL_SSL\nsasl.mechanism=GSSAPI",
                "sasl.mechanism: \"GSSAPI\" is not supported",
            ),
            (
                "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config=x",
                "sasl.jaas.config: it has no",
            ),
            ("ssl.truststore.location=/x.jks", "ssl.truststore.type: JKS, the default, is not supported"),
            ("ssl.truststore.type=PKCS12", "ssl.truststore.type: PKCS12 is not supported"),
            ("ssl.keystore.key=x", "ssl.keystore takes either"),
            ("ssl.key.password=x", "ssl.key.password is not supported"),
            ("ssl.endpoint.identification.algorithm=", "ssl.endpoint.identification.algorithm: \"\" is not"),
            ("sasl.login.class=x", "sasl.login.class is not supported"),
            ("default.api.timeout.ms=0", "default.api.timeout.ms: \"0\" is no time"),
            ("a=\\u12", "\\u12 is no character"),
        ] {
            let error = access(text).map(|_| ()).unwrap_err();
            assert!(error.starts_with(problem), "{text}: {error}");
        }
    }

    #[test]
    fn without_a_protocol_nothing_is_encrypted_or_sent() {
        let text = "sasl.mechanism=PLAIN\nsasl.jaas.config=PlainLoginModule required username=a password=b;";
        let (access, unused) = access(text).unwrap();
        assert!(access.tls.is_none() && access.mechanism.is_none() && access.login.is_none());
        assert!(unused.is_empty());
    }
}
