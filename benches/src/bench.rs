//! The data that all groups of rows use: the programs to run, a directory for temporary files, and the
//! table.

use crate::{contender, table, tools};
use anyhow::Result;
use edleak_tests::temp::TempDir;

/// The programs to run, a directory for temporary files, and the table. All groups of rows share this data.
pub(crate) struct Bench {
    /// edleak's programs.
    pub(crate) tools: tools::Tools,
    /// The commands that start the contenders.
    pub(crate) starter: contender::Starter,
    /// The directory for all temporary files.
    pub(crate) dir: TempDir,
    pub(crate) rows: Vec<table::Row>,
}

impl Bench {
    pub(crate) fn new() -> Result<Bench> {
        let tools = tools::Tools::build()?;
        let dir = TempDir::new("bench");
        let starter = contender::Starter::new(&tools, dir.path())?;
        Ok(Bench { tools, starter, dir, rows: Vec::new() })
    }

    /// Adds a row to the table and prints it.
    pub(crate) fn add(&mut self, row: table::Row) {
        table::print(&row);
        self.rows.push(row);
    }
}
