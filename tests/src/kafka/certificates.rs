//! Certificates of the brokers and clients of the tests. Each process generates them, so that no key is in
//! git.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::install;

/// Certificate authorities and the certificates that they issued, as PEM files.
#[derive(Debug)]
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Returns the certificates of this process.
    ///
    /// # Panics
    ///
    /// If they cannot be generated or written.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Result<Certificates, String>> = LazyLock::new(|| {
            let run = install::RUN.as_ref().map_err(Clone::clone)?;
            let dir = run.dir.join("certificates");
            generate(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            Ok(Certificates { dir })
        });
        SHARED.as_ref().unwrap_or_else(|e| panic!("no certificates: {e}"))
    }

    /// Returns the authority of the brokers' certificates, which is also the one that brokers trust.
    pub fn authority(&self) -> PathBuf {
        self.file("authority")
    }

    /// Returns an authority that no broker trusts.
    pub fn other_authority(&self) -> PathBuf {
        self.file("other-authority")
    }

    /// Returns a client's certificate chain and private key, which brokers accept.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.file("client"), self.file("client-key"))
    }

    /// Returns a client's certificate chain and private key that brokers reject: of another authority.
    pub fn untrusted_client(&self) -> (PathBuf, PathBuf) {
        (self.file("untrusted-client"), self.file("untrusted-client-key"))
    }

    /// Returns a broker's private key and certificate chain in one file, the form that Kafka requires.
    pub(super) fn broker(&self, kind: Server) -> PathBuf {
        self.file(kind.name())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pem"))
    }
}

/// The kind of a listener's certificate.
#[derive(Clone, Copy, Debug)]
pub(super) enum Server {
    /// For `localhost` and 127.0.0.1.
    Valid,
    /// For another host.
    WrongHost,
    /// Like [`Self::Valid`], but expired.
    Expired,
}

impl Server {
    const ALL: [Self; 3] = [Self::Valid, Self::WrongHost, Self::Expired];

    fn name(self) -> &'static str {
        match self {
            Self::Valid => "server",
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

fn generate(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(dir)?;
    let write = |name: &str, pem: &str| fs::write(dir.join(format!("{name}.pem")), pem);
    let authority = authority("kwal tests")?;
    write("authority", &authority.pem())?;
    let other = self::authority("other kwal tests")?;
    write("other-authority", &other.pem())?;

    for server in Server::ALL {
        let key = KeyPair::generate()?;
        let certificate = named(server.parameters()?, server.name()).signed_by(&key, &authority)?;
        let chain = [key.serialize_pem(), certificate.pem(), authority.pem()].concat();
        write(server.name(), &chain)?;
    }
    for (name, authority) in [("client", &authority), ("untrusted-client", &other)] {
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
