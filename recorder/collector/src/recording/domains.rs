//! The domains (kinds) of memory that a recording covers: the heap, mapped memory and pools. On the command
//! line, the user names the domains to record.

use crate::error::{Error, ErrorKind};
use edleak_session::control::{DOMAIN_MAPPING, DOMAIN_POOL};

/// The domains of memory that a recording covers in addition to the heap, which every recording covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Domains {
    /// Memory that the program maps with mmap, mremap and shmat.
    pub(crate) mapping: bool,
    /// Objects that the program's own pools hand out. The program reports the objects of its pools with the
    /// functions of edleak.h.
    pub(crate) pool: bool,
}

impl Domains {
    /// The names of the domains, in the form in which messages list them.
    const NAMES: &str = "heap, mapping, pool or all";
    /// All domains.
    pub(crate) const ALL: Domains = Domains { mapping: true, pool: true };
    /// Only the heap.
    pub(crate) const HEAP: Domains = Domains { mapping: false, pool: false };

    /// The flags of the domains in the control page, which the targets read.
    pub(crate) fn flags(self) -> u32 {
        let flag = |is_on: bool, flag: u32| if is_on { flag } else { 0 };
        flag(self.mapping, DOMAIN_MAPPING) | flag(self.pool, DOMAIN_POOL)
    }
}

impl std::str::FromStr for Domains {
    type Err = Error;

    fn from_str(text: &str) -> Result<Domains, Error> {
        let mut domains = Domains::HEAP;
        for name in text.split(',').map(str::trim) {
            match name {
                "heap" => {}
                "mapping" => domains.mapping = true,
                "pool" => domains.pool = true,
                "all" => domains = Domains::ALL,
                _ => {
                    let message = format!("`{name}` is no domain of memory");
                    let remedy = format!("use {}", Domains::NAMES);
                    return Err(Error::new(ErrorKind::Value, message).with_remedy(&remedy));
                }
            }
        }
        Ok(domains)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_named_and_the_heap_is_always_among_them() {
        assert_eq!("heap".parse(), Ok(Domains::HEAP));
        assert_eq!("mapping".parse(), Ok(Domains { mapping: true, ..Domains::HEAP }));
        assert_eq!("all".parse::<Domains>(), "heap,mapping,pool".parse());
        assert_eq!("all".parse(), Ok(Domains::ALL));
        for text in ["", "stack", "heap,,mapping"] {
            assert!(
                text.parse::<Domains>().is_err_and(|error| error.to_string().contains("mapping")),
                "{text}"
            );
        }
    }
}
