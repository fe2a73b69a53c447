//! The next certificate, before this one ends: when it is asked for, and how the new pair takes the place of the old.
//!
//! The next key lies beside the key (`.next`) from the moment that it is asked with, the next certificate from the
//! moment that it comes. Two files cannot change at once; what a crash interrupts, [`recover`] finishes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sheaf_common::enrolment::Chain;
use sheaf_transport::enrolment::request;
use sheaf_transport::files::{self, WriteError};
use sheaf_transport::key::PrivateKey;
use sheaf_transport::tls::{CredentialPaths, Credentials};

use super::IdentityError;

/// Both sides are warned when a certificate ends within this time.
pub const WARN_SECONDS: i64 = 30 * 86_400;

/// Longest and shortest pause before a certificate is asked for again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(1));

/// How long from `now` (seconds since the Unix epoch) until the next certificate should be asked for: two thirds into
/// the life of this one.
pub fn due(credentials: &Credentials, now: i64) -> Duration {
    let Credentials { not_before, not_after, .. } = credentials;
    let at = not_before.saturating_add(not_after.saturating_sub(*not_before) / 3 * 2);
    Duration::from_secs(u64::try_from(at.saturating_sub(now)).unwrap_or(0))
}

/// How long to wait after an answer that was no certificate: an hour, less when little is left.
pub fn again(credentials: &Credentials, now: i64) -> Duration {
    let left = u64::try_from(credentials.not_after.saturating_sub(now)).unwrap_or(0);
    Duration::from_secs(left / 10).clamp(AGAIN.1, AGAIN.0)
}

/// A request for the next certificate, whose key is on disk before anybody hears of it.
pub fn next_request(paths: &CredentialPaths, credentials: &Credentials) -> Result<Vec<u8>, IdentityError> {
    let path = next(&paths.key);
    let key = if path.exists() {
        PrivateKey::read(&path)?
    } else {
        let key = PrivateKey::generate()?;
        files::write_key(&path, &key.pem())?;
        key
    };
    let identity = &credentials.identity;
    Ok(request(&key, &identity.name, Some(&identity.federation))?.der().to_vec())
}

/// Puts the next certificate and its key in the place of the present ones, if they are what was asked for.
pub fn install(
    paths: &CredentialPaths,
    credentials: &Credentials,
    chain: &Chain,
    now: std::time::SystemTime,
) -> Result<(), IdentityError> {
    let useless = IdentityError::Useless;
    let (identity, certified) =
        credentials.authority().verify(&chain.concat(), now).map_err(|e| useless(e.to_string()))?;
    if identity != credentials.identity {
        return Err(useless(format!("it is of {identity}, not of {}", credentials.identity)));
    }
    let key = PrivateKey::read(&next(&paths.key))?;
    if !key.public_key().ends_with(&certified) {
        return Err(useless("it is for another key".into()));
    }
    files::replace(&next(&paths.certificate), &files::pem(chain))?;
    Ok(recover(paths)?)
}

/// Finishes a change of certificate and key that has begun: it has when the next certificate is there.
pub fn recover(paths: &CredentialPaths) -> Result<(), WriteError> {
    if !next(&paths.certificate).exists() {
        return Ok(());
    }
    // The key goes first: a certificate without its next key beside it is one whose key is in place already.
    advance(&paths.key)?;
    advance(&paths.certificate)
}

fn advance(path: &Path) -> Result<(), WriteError> {
    let failed = |e| WriteError::Io(path.to_owned(), e);
    match fs::rename(next(path), path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.and_then(|()| files::sync_folder(path)).map_err(failed),
    }
}

fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType};

    use super::*;

    /// An authority, and a folder of a site whose certificate is valid from now for a time.
    struct Fixture {
        dir: tempfile::TempDir,
        issuer: Issuer<'static, PrivateKey>,
        paths: CredentialPaths,
    }

    impl Fixture {
        fn new() -> Self {
            let key = PrivateKey::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let ca = params.self_signed(&key).unwrap();
            let issuer = Issuer::new(params, key);
            let dir = tempfile::tempdir().unwrap();
            let file = |name: &str| dir.path().join(name);
            let paths =
                CredentialPaths { certificate: file("a.crt"), key: file("a.key"), ca: file("ca.crt") };
            files::write_new(&paths.ca, &ca.pem()).unwrap();
            let fixture = Self { dir, issuer, paths };
            let own = PrivateKey::generate().unwrap();
            files::write_key(&fixture.paths.key, &own.pem()).unwrap();
            let chain = fixture.sign("a", &own);
            files::write_new(&fixture.paths.certificate, &files::pem(&chain)).unwrap();
            fixture
        }

        fn sign(&self, name: &str, key: &impl PublicKeyData) -> Chain {
            let mut params = CertificateParams::default();
            let uri = format!("sheaf://hearts/site/{name}");
            params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
            vec![params.signed_by(key, &self.issuer).unwrap().der().to_vec()]
        }

        fn load(&self) -> Credentials {
            Credentials::load(&self.paths).unwrap()
        }

        /// The certificate that is asked for, under a name.
        fn answer(&self, name: &str) -> Chain {
            next_request(&self.paths, &self.load()).unwrap();
            self.sign(name, &PrivateKey::read(&next(&self.paths.key)).unwrap())
        }
    }

    #[test]
    fn a_new_pair_takes_the_place_of_the_old() {
        let fixture = Fixture::new();
        let (former, chain) = (fixture.load(), fixture.answer("a"));
        assert_eq!(
            next_request(&fixture.paths, &former).unwrap(),
            next_request(&fixture.paths, &former).unwrap(),
            "the key of an earlier question serves again"
        );
        install(&fixture.paths, &former, &chain, SystemTime::now()).unwrap();
        assert_eq!(fixture.load().certificate(), chain.concat());
        assert_ne!(former.certificate(), chain.concat());
        let mode = fs::metadata(&fixture.paths.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(fixture.dir.path()).unwrap().count(), 3, "nothing else is left");
    }

    #[test]
    fn a_crash_in_between_leaves_the_old_pair_or_the_new_one() {
        for crash_after in 0..=3 {
            let fixture = Fixture::new();
            let (former, chain) = (fixture.load().certificate(), fixture.answer("a"));
            let CredentialPaths { certificate, key, .. } = &fixture.paths;
            let steps: [&dyn Fn() -> Result<(), WriteError>; 3] =
                [&|| files::replace(&next(certificate), &files::pem(&chain)), &|| advance(key), &|| {
                    advance(certificate)
                }];
            for step in steps.iter().take(crash_after) {
                step().unwrap();
            }
            recover(&fixture.paths).unwrap();
            let expected = if crash_after == 0 { former } else { chain.concat() };
            assert_eq!(fixture.load().certificate(), expected, "after {crash_after} steps");
        }
    }

    #[test]
    fn what_was_not_asked_for_is_not_installed() {
        let fixture = Fixture::new();
        let former = fixture.load();
        let refused = |chain: &Chain| {
            install(&fixture.paths, &former, chain, SystemTime::now()).unwrap_err().to_string()
        };
        assert!(refused(&fixture.answer("b")).contains("it is of sheaf://hearts/site/b"));
        let other = fixture.sign("a", &PrivateKey::generate().unwrap());
        assert!(refused(&other).contains("it is for another key"));
        let foreign = Fixture::new().answer("a");
        assert!(refused(&foreign).contains("the federation's CA does not vouch for it"));
        assert!(refused(&vec![b"no certificate".to_vec()]).contains("does not vouch for it"));
        assert_eq!(fixture.load().certificate(), former.certificate());
    }

    #[test]
    fn a_certificate_is_asked_for_at_two_thirds_of_its_life() {
        let mut credentials = Fixture::new().load();
        (credentials.not_before, credentials.not_after) = (1000, 1900);
        assert_eq!(due(&credentials, 1000), Duration::from_secs(600));
        assert_eq!(due(&credentials, 1599), Duration::from_secs(1));
        assert_eq!(due(&credentials, 1600), Duration::ZERO);
        assert_eq!(due(&credentials, 5000), Duration::ZERO);
        assert_eq!(again(&credentials, 1600), Duration::from_secs(30));
        assert_eq!(again(&credentials, 1899), AGAIN.1);
        credentials.not_after = 1000 + 365 * 86_400;
        assert_eq!(again(&credentials, 1600), AGAIN.0);
    }
}
