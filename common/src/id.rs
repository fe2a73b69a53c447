//! Who is who: names, roles and the identity that a certificate carries.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name, so that every name fits a DNS label and a file name.
pub const NAME_MAX: usize = 63;

/// A checked name: lower-case letters, digits and inner hyphens, 1 to 63 characters.
///
/// Names appear in certificates, DNS labels, paths and logs, which is why nothing else is allowed in them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text cannot be a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a name: use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends"
)]
pub struct BadName(String);

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| *b != b'-');
        let bytes = text.as_bytes();
        if bytes.len() <= NAME_MAX
            && bytes.iter().all(|b| allowed(*b))
            && edge(bytes.first())
            && edge(bytes.last())
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! name_newtype {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub Name);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $type {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name_newtype! {
    /// The federation: the set of parties under one certificate authority.
    Federation
}
name_newtype! {
    /// A site, as its certificate names it. Never taken from a message body.
    ClientId
}
name_newtype! {
    /// A run: the name in `run.toml`, with a number behind it when the name is taken.
    RunId
}

/// What a certificate allows its holder to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The aggregation server.
    Server,
    /// A site: trains on its own data.
    Site,
    /// A person or program that steers the server.
    Operator,
    /// A person or program that may look but not touch.
    Viewer,
}

impl Role {
    /// The word used in a certificate's URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Site => "site",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is no role.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a role: use server, site, operator or viewer")]
pub struct BadRole(String);

impl FromStr for Role {
    type Err = BadRole;

    fn from_str(text: &str) -> Result<Self, BadRole> {
        [Self::Server, Self::Site, Self::Operator, Self::Viewer]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| BadRole(text.chars().take(80).collect()))
    }
}

/// A party of a federation: `sheaf://<federation>/<role>/<name>`, the SAN URI of its certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// The federation that the party belongs to.
    pub federation: Federation,
    /// What the party may do.
    pub role: Role,
    /// The party's name, unique within its role.
    pub name: Name,
}

impl Identity {
    /// The DNS name that every server certificate of `federation` carries and every client asks TLS for.
    ///
    /// It is never looked up: it lets the ordinary TLS name check prove "a server of my federation".
    pub fn server_dns_name(federation: &Federation) -> String {
        format!("server.{federation}.sheaf")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sheaf://{}/{}/{}", self.federation, self.role, self.name)
    }
}

/// The text is no Sheaf identity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{uri}` is not a Sheaf identity (sheaf://<federation>/<role>/<name>): {why}")]
pub struct BadIdentity {
    uri: String,
    why: String,
}

impl FromStr for Identity {
    type Err = BadIdentity;

    fn from_str(uri: &str) -> Result<Self, BadIdentity> {
        let bad = |why: String| BadIdentity { uri: uri.chars().take(120).collect(), why };
        let rest =
            uri.strip_prefix("sheaf://").ok_or_else(|| bad("it does not start with sheaf://".into()))?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [federation, role, name] = parts[..] else {
            return Err(bad("it does not have three parts".into()));
        };
        Ok(Self {
            federation: federation.parse().map_err(|e: BadName| bad(e.to_string()))?,
            role: role.parse().map_err(|e: BadRole| bad(e.to_string()))?,
            name: name.parse().map_err(|e: BadName| bad(e.to_string()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "st-mary", "0", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "St-Mary", "a b", "a/b", "..", "ü", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn identity_is_written_and_read_back() {
        let identity: Identity = "sheaf://hearts/site/cleveland".parse().unwrap();
        assert_eq!(identity.role, Role::Site);
        assert_eq!(identity.to_string(), "sheaf://hearts/site/cleveland");
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        for bad in [
            "http://a/site/b",
            "sheaf://a/site",
            "sheaf://a/boss/b",
            "sheaf://A/site/b",
            "sheaf://a/site/b/c",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }
}
