//! How many files the program may have open. Connections and the updates of a round count, and the limit that shells and
//! service managers hand down by default is made for programs that have few.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Asks the system for as many as it grants without more rights. One that grants nothing leaves the limit as it was.
pub fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What is too little is said where a file cannot be opened.
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_there_may_be() {
        let mut limit = getrlimit(Resource::Nofile);
        let most = limit.maximum;
        // Other tests need theirs meanwhile.
        limit.current = most.map(|most| most - 1);
        setrlimit(Resource::Nofile, limit).unwrap();
        raise();
        assert_eq!(getrlimit(Resource::Nofile).current, most);
    }
}
