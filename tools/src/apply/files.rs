//! The files of one apply: found, expanded, and put into one text, each as a document of its own.

use super::template;
use anyhow::{Context, bail};
use sluice_schema::declare::Mistake;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Directories in directories.
const DEPTH_MAX: usize = 32;
/// What ends a document. A bare one may follow.
const END: &str = "...\n";

/// Several files as one text.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    pub(crate) text: String,
    names: Vec<String>,
    /// For each line of the text the file and its line there.
    lines: Vec<(usize, usize)>,
}

impl Bundle {
    /// Reads files, directories (all `.yaml`, `.yml` and `.json` below them, in the order of their paths) and `-`, the
    /// standard input.
    ///
    /// # Errors
    /// If one cannot be read, with everything that is wrong with the templates in them.
    pub(crate) fn read(
        paths: &[PathBuf],
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let mut bundle = Self::default();
        let mut mistakes = Vec::new();
        for path in paths {
            for file in find(path)? {
                let name = match file.as_os_str() == "-" {
                    true => "<stdin>".to_owned(),
                    false => file.display().to_string(),
                };
                match template::expand(&read(&file)?, lookup) {
                    Ok(expanded) => bundle.add(name, expanded),
                    Err(wrong) => {
                        let wrong = wrong.into_iter();
                        mistakes.extend(wrong.map(|(line, why)| format!("{name}:{line}: {why}")));
                    }
                }
            }
        }
        match mistakes.is_empty() {
            true => Ok(bundle),
            false => bail!("nothing was sent\n{}", mistakes.join("\n")),
        }
    }

    /// A file that is here already.
    ///
    /// # Errors
    /// If there are templates in it.
    pub(crate) fn of(name: &str, text: &str) -> anyhow::Result<Self> {
        match template::expand(text, &|_| None) {
            Ok(expanded) => {
                let mut bundle = Self::default();
                bundle.add(name.to_owned(), expanded);
                Ok(bundle)
            }
            Err(mistakes) => bail!("{name} has templates: {mistakes:?}"),
        }
    }

    fn add(&mut self, name: String, expanded: template::Expanded) {
        if !self.names.is_empty() {
            if !self.text.ends_with('\n') {
                self.text.push('\n');
            }
            self.text.push_str(END);
            // The line that an end of line alone began.
            self.lines.truncate(self.text.matches('\n').count() - 1);
            let last = self.lines.last().copied().unwrap_or_default();
            self.lines.push(last);
        }
        let file = self.names.len();
        self.names.push(name);
        let text = expanded.text.strip_prefix('\u{feff}');
        self.text.push_str(text.unwrap_or(&expanded.text));
        self.lines
            .extend(expanded.lines.into_iter().map(|line| (file, line)));
    }

    /// A mistake, in the form that editors can jump to.
    pub(crate) fn told(&self, mistake: &Mistake) -> String {
        let colon = if mistake.path.is_empty() { "" } else { ": " };
        let line = u64::try_from(mistake.at.line).unwrap_or_default();
        let (place, column) = (self.place(line), mistake.at.column);
        format!(
            "{place}:{column}: {}{colon}{}",
            mistake.path, mistake.message
        )
    }

    /// `file:line` of a line of the text.
    pub(crate) fn place(&self, line: u64) -> String {
        let line = usize::try_from(line).unwrap_or_default();
        let known = line.checked_sub(1).and_then(|index| self.lines.get(index));
        let (file, line) = known.or(self.lines.last()).copied().unwrap_or((0, line));
        let name = self.names.get(file).map_or("", String::as_str);
        format!("{name}:{line}")
    }

    /// What to call it while it is being applied.
    pub(crate) fn label(&self) -> String {
        let kib = self.text.len() / 1024;
        match self.names.as_slice() {
            [one] => format!("{one} ({kib} KiB)"),
            many => format!("{} files ({kib} KiB)", many.len()),
        }
    }
}

/// The files that a path names.
fn find(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    collect(path, 0, &mut found)?;
    if found.is_empty() {
        bail!(
            "there is no .yaml, .yml or .json file in '{}'",
            path.display()
        );
    }
    found.sort();
    Ok(found)
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if depth > DEPTH_MAX {
        bail!("'{}' is too deep", directory.display());
    }
    let unreadable = || format!("could not read directory '{}'", directory.display());
    for entry in std::fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            collect(&path, depth + 1, found)?;
        } else if matches!(extension, Some("yaml" | "yml" | "json")) {
            found.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("could not read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("could not read '{}'", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_one_text_whose_lines_are_known() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("b.yml", "\u{feff}b: 1\r\nc: ${{ env \"TWO\" }}\r\nd: 3");
        write("a/x.json", "{\n}\n");
        write("a/ignored.txt", "no");
        write("c.yaml", "# c\n");
        let two = |name: &str| (name == "TWO").then(|| "x\ny".to_owned());
        let bundle = Bundle::read(&[directory.path().to_owned()], &two).unwrap();
        assert_eq!(
            bundle.text,
            "{\n}\n...\nb: 1\r\nc: x\ny\r\nd: 3\n...\n# c\n"
        );
        let places: Vec<String> = (1..=9).map(|line| bundle.place(line)).collect();
        let short: Vec<&str> = places
            .iter()
            .map(|place| place.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(
            short,
            [
                "x.json:1", "x.json:2", "x.json:2", "b.yml:1", "b.yml:2", "b.yml:2", "b.yml:3",
                "b.yml:3", "c.yaml:1"
            ]
        );
        assert!(bundle.label().starts_with("3 files"));
        let none = |_: &str| None;
        let error = Bundle::read(&[directory.path().to_owned()], &none).unwrap_err();
        assert!(
            error.to_string().contains("b.yml:2: the environment"),
            "{error}"
        );
    }
}
