//! The domains of memory that a recording covers, as on the command line.

use crate::error::{Error, ErrorKind};

/// The domains of memory. A recording always covers the heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Domains {
    /// Memory that the program maps with mmap, mremap and shmat.
    pub mapping: bool,
}

impl Domains {
    /// The names of the domains, for messages.
    pub const NAMES: &str = "heap, mapping or all";
    /// All domains.
    pub const ALL: Domains = Domains { mapping: true };

    /// The flags of the domains in the control page, which the targets read.
    pub fn flags(self) -> u32 {
        if self.mapping { edleak_session::control::DOMAIN_MAPPING } else { 0 }
    }
}

impl std::str::FromStr for Domains {
    type Err = Error;

    fn from_str(text: &str) -> Result<Domains, Error> {
        let mut domains = Domains { mapping: false };
        for name in text.split(',').map(str::trim) {
            match name {
                "heap" => {}
                "mapping" => domains.mapping = true,
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
        assert_eq!("heap".parse(), Ok(Domains { mapping: false }));
        assert_eq!("all".parse::<Domains>(), "heap,mapping".parse());
        assert_eq!("all".parse(), Ok(Domains::ALL));
        for text in ["", "stack", "heap,,mapping"] {
            assert!(
                text.parse::<Domains>().is_err_and(|error| error.to_string().contains("mapping")),
                "{text}"
            );
        }
    }
}
