//! What a shell and `man` are told about the command line: completions and manual pages, made from the same description
//! that parses it.

use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// Writes a shell's completions.
pub fn completions(command: &mut Command, shell: Shell, out: &mut dyn io::Write) -> io::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, command, "ringway", &mut text);
    out.write_all(&text)
}

/// Writes the manual page of the program.
pub fn page(command: Command, out: &mut dyn io::Write) -> io::Result<()> {
    clap_mangen::Man::new(command).render(out)
}

/// Writes the pages of the program and of its commands into a directory.
pub fn pages(command: Command, directory: &Path) -> io::Result<()> {
    clap_mangen::generate_to(command, directory)
}
