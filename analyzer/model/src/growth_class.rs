//! The kinds of growth of a site, with the names that reports and `--min-class` use.

/// The kind of growth. `--min-class` selects one kind and all kinds that come after it in this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The site does not grow.
    Constant,
    /// Growth that slows down, such as a cache that fills.
    Log,
    /// Growth at a steady rate.
    Linear,
    /// Growth that accelerates.
    Exp,
}

impl Class {
    /// The name used in reports and by `--min-class`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Log => "log",
            Self::Linear => "linear",
            Self::Exp => "exp",
        }
    }
}
