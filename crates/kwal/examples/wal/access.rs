//! The ways in to brokers: what the command line and the environment say of them, for a [`ClientBuilder`].

use std::env;

use kwal::client::{
    ClientBuilder,
    sasl::{Sasl, Token},
};
use lexopt::Parser;

use crate::{Failure, options::text};

/// What the options say. Secrets are not among them: every user of the machine can read a command line.
#[derive(Default)]
pub(crate) struct Access {
    tls_ca: Option<String>,
    tls_cert: Option<String>,
    tls_key: Option<String>,
    sasl: Option<String>,
    sasl_in_clear: bool,
    socks5: Option<String>,
}

impl Access {
    /// Takes an option with its value from the command line; `false` if it is not one of these.
    pub(crate) fn take(&mut self, option: &str, parser: &mut Parser) -> Result<bool, Failure> {
        let place = match option {
            "tls-ca" => &mut self.tls_ca,
            "tls-cert" => &mut self.tls_cert,
            "tls-key" => &mut self.tls_key,
            "sasl" => &mut self.sasl,
            "socks5" => &mut self.socks5,
            "sasl-in-clear" => {
                self.sasl_in_clear = true;
                return Ok(true);
            }
            _ => return Ok(false),
        };
        *place = Some(text(parser)?);
        Ok(true)
    }

    /// Whether there is anything that an embedded broker would not understand.
    pub(crate) fn is_plain(&self) -> bool {
        let Self { tls_ca, tls_cert, tls_key, sasl, sasl_in_clear, socks5 } = self;
        let given = [tls_ca, tls_cert, tls_key, sasl, socks5];
        !sasl_in_clear && given.iter().all(|option| option.is_none())
    }

    /// Makes the client come in as the options say.
    pub(crate) fn apply(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, Failure> {
        match (&self.tls_ca, &self.tls_cert, &self.tls_key) {
            (Some(roots), cert, key) => builder = tls(builder, roots, cert.as_ref(), key.as_ref())?,
            (None, None, None) => {}
            (None, ..) => return Err(usage("--tls-cert and --tls-key take --tls-ca as well")),
        }
        if let Some(proxy) = &self.socks5 {
            builder = socks5(builder, proxy)?;
        }
        if let Some(mechanism) = &self.sasl {
            let mut sasl = sasl(mechanism)?;
            if self.sasl_in_clear {
                sasl = sasl.danger_send_unencrypted();
            }
            builder = builder.sasl(sasl);
        }
        Ok(builder)
    }
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
fn tls(
    builder: ClientBuilder,
    roots: &str,
    cert: Option<&String>,
    key: Option<&String>,
) -> Result<ClientBuilder, Failure> {
    use kwal::transport::tls;

    #[cfg(feature = "tls-ring")]
    let begun = tls::ring();
    #[cfg(not(feature = "tls-ring"))]
    let begun = tls::aws_lc_rs();
    let mut tls = match roots {
        "webpki" => begun.webpki_roots(),
        "platform" => begun.platform_roots(),
        file => begun.roots_pem_file(file),
    };
    match (cert, key) {
        // A file may hold both.
        (Some(cert), key) => tls = tls.client_pem_files(cert, key.unwrap_or(cert)),
        (None, None) => {}
        (None, Some(_)) => return Err(usage("--tls-key takes --tls-cert as well")),
    }
    // Once is enough for a program that ends soon; a service would hand over `tls` itself, which reads the
    // files again when they have been renewed.
    let config = tls.build().map_err(|error| Failure::Run(crate::failure::Chain(&error).to_string()))?;
    Ok(builder.tls(config))
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
fn tls(_: ClientBuilder, _: &str, _: Option<&String>, _: Option<&String>) -> Result<ClientBuilder, Failure> {
    Err(usage("--tls-ca is not in this build: it takes cryptography, by cargo's --features tls-ring"))
}

#[cfg(feature = "transport-socks5")]
fn socks5(builder: ClientBuilder, proxy: &str) -> Result<ClientBuilder, Failure> {
    use kwal::transport::{InvalidAddress, Socks5};

    let address =
        proxy.parse().map_err(|error: InvalidAddress| Failure::Usage(format!("--socks5: {error}")))?;
    let mut proxy = Socks5::new(address);
    if let Some(user) = variable("SOCKS5_USER") {
        let login = proxy.login(user, variable("SOCKS5_PASSWORD").unwrap_or_default());
        proxy = login.map_err(|error| Failure::Usage(format!("SOCKS5_USER and SOCKS5_PASSWORD: {error}")))?;
    }
    Ok(builder.socks5_proxy(proxy))
}

#[cfg(not(feature = "transport-socks5"))]
fn socks5(_: ClientBuilder, _: &str) -> Result<ClientBuilder, Failure> {
    Err(usage("--socks5 is not in this build: it takes cargo's --features transport-socks5"))
}

fn sasl(mechanism: &str) -> Result<Sasl, Failure> {
    let wanted = |name: &str| {
        variable(name)
            .ok_or_else(|| Failure::Usage(format!("--sasl {mechanism} takes {name} in the environment")))
    };
    let password =
        |sasl: fn(String, String) -> Sasl| Ok(sasl(wanted("KAFKA_USER")?, wanted("KAFKA_PASSWORD")?));
    match mechanism {
        "PLAIN" => password(Sasl::plain),
        "SCRAM-SHA-256" => password(Sasl::scram_sha_256),
        "SCRAM-SHA-512" => password(Sasl::scram_sha_512),
        "OAUTHBEARER" => {
            let token = wanted("KAFKA_TOKEN")?;
            // A service would fetch one from its identity provider here.
            Ok(Sasl::oauth_bearer(move || {
                let token = Token::new(token.clone());
                async { Ok::<_, std::convert::Infallible>(token) }
            }))
        }
        other => Err(Failure::Usage(format!(
            "--sasl {other:?} is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER"
        ))),
    }
}

/// What the environment has under this name; nothing is nothing.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn usage(text: &str) -> Failure {
    Failure::Usage(text.to_owned())
}
