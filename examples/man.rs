//! Writes the manual pages of `carillon` and of each of its commands into a folder: `make man`.
//!
//! An example and no command, so that the program does not carry what makes them.

use std::path::Path;
use std::{env, fs, io};

use carillon::cli::Cli;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

fn main() -> io::Result<()> {
    let folder = env::args()
        .nth(1)
        .unwrap_or_else(|| "target/man".to_owned());
    fs::create_dir_all(&folder)?;
    for (name, page) in pages()? {
        fs::write(Path::new(&folder).join(name), page)?;
    }
    Ok(())
}

/// Each page with the name of its file, such as `carillon-subscriptions-apply.1`.
pub fn pages() -> io::Result<Vec<(String, String)>> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    add(&root, &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, pages: &mut Vec<(String, String)>) -> io::Result<()> {
    let man = Man::new(command.clone())
        .source(concat!("Carillon ", env!("CARGO_PKG_VERSION")))
        .manual("Carillon");
    pages.push((man.get_filename(), in_ascii(&page(command, &man)?)));
    for below in command.get_subcommands() {
        add(below, pages)?;
    }
    Ok(())
}

fn page(command: &Command, man: &Man) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let examples = command.get_after_long_help();
    if let Some(examples) = examples.or_else(|| command.get_after_help()) {
        // Line by line, as they are to be typed: the renderer's own section fills them up.
        let mut roff = Roff::new();
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        let text = examples.to_string();
        for line in text.strip_prefix("Examples:\n").unwrap_or(&text).lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
        roff.to_writer(&mut page)?;
    }
    Ok(page)
}

/// What is not ASCII, as groff and mandoc both read it: `…` is `\[u2026]`.
fn in_ascii(page: &[u8]) -> String {
    let mut ascii = String::with_capacity(page.len());
    for c in String::from_utf8_lossy(page).chars() {
        match c.is_ascii() {
            true => ascii.push(c),
            false => ascii.push_str(&format!("\\[u{:04X}]", u32::from(c))),
        }
    }
    ascii
}
