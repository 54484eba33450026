//! Certificates as the brokers and clients of the tests show them, made anew by each process: no key lies in git.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::install;

/// Certificate authorities and what they have signed, as PEM files.
#[derive(Debug)]
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Those of this process.
    ///
    /// # Panics
    ///
    /// If they cannot be made or written.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Result<Certificates, String>> = LazyLock::new(|| {
            let run = install::RUN.as_ref().map_err(Clone::clone)?;
            let dir = run.dir.join("certificates");
            make(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            Ok(Certificates { dir })
        });
        SHARED.as_ref().unwrap_or_else(|e| panic!("no certificates: {e}"))
    }

    /// The authority that signed the brokers' certificates, and that they ask of their clients.
    pub fn authority(&self) -> PathBuf {
        self.file("authority")
    }

    /// An authority that no broker knows.
    pub fn other_authority(&self) -> PathBuf {
        self.file("other-authority")
    }

    /// A client's certificate chain and its private key, which brokers accept.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.file("client"), self.file("client-key"))
    }

    /// The same of another authority: brokers do not accept it.
    pub fn stranger(&self) -> (PathBuf, PathBuf) {
        (self.file("stranger"), self.file("stranger-key"))
    }

    /// A broker's private key and certificate chain in one file, as Kafka wants them.
    pub(super) fn broker(&self, kind: Server) -> PathBuf {
        self.file(kind.name())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pem"))
    }
}

/// What a listener shows to its clients.
#[derive(Clone, Copy, Debug)]
pub(super) enum Server {
    /// As it should be: for `localhost` and 127.0.0.1.
    Good,
    /// For another host.
    WrongHost,
    /// As it should have been, years ago.
    Expired,
}

impl Server {
    const ALL: [Self; 3] = [Self::Good, Self::WrongHost, Self::Expired];

    fn name(self) -> &'static str {
        match self {
            Self::Good => "server",
            Self::WrongHost => "server-of-another-host",
            Self::Expired => "server-expired",
        }
    }

    fn parameters(self) -> Result<CertificateParams, rcgen::Error> {
        let hosts: &[&str] = match self {
            Self::WrongHost => &["elsewhere.example"],
            _ => &["localhost", "127.0.0.1"],
        };
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parameters = CertificateParams::new(hosts)?;
        if matches!(self, Self::Expired) {
            parameters.not_before = date_time_ymd(2020, 1, 1);
            parameters.not_after = date_time_ymd(2020, 12, 31);
        }
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(parameters)
    }
}

fn make(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(dir)?;
    let write = |name: &str, pem: &str| fs::write(dir.join(format!("{name}.pem")), pem);
    let authority = authority("kwal tests")?;
    write("authority", &authority.pem())?;
    let other = self::authority("kwal tests, others")?;
    write("other-authority", &other.pem())?;

    for server in Server::ALL {
        let key = KeyPair::generate()?;
        let certificate = named(server.parameters()?, server.name()).signed_by(&key, &authority)?;
        let chain = [key.serialize_pem(), certificate.pem(), authority.pem()].concat();
        write(server.name(), &chain)?;
    }
    for (name, authority) in [("client", &authority), ("stranger", &other)] {
        let key = KeyPair::generate()?;
        let mut parameters = named(CertificateParams::default(), name);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        write(name, &parameters.signed_by(&key, authority)?.pem())?;
        write(&format!("{name}-key"), &key.serialize_pem())?;
    }
    Ok(())
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut parameters = named(CertificateParams::default(), name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)
}

fn named(mut parameters: CertificateParams, name: &str) -> CertificateParams {
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}
