//! Configurations of several files.

use std::fs;
use std::path::{Path, PathBuf};

use super::SMALL;
use crate::config::load;

/// A directory of its own, removed at the end of the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let directory = Self(std::env::temp_dir().join(format!("weir-config-{}-{name}", std::process::id())));
        for (file, text) in files {
            let path = directory.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    fn main(&self) -> PathBuf {
        self.0.join("weir.toml")
    }

    /// The mistakes, with this directory's path cut out.
    fn refused(&self) -> Vec<String> {
        let prefix = format!("{}/", self.0.display());
        load(&self.main()).unwrap_err().iter().map(|error| error.to_string().replace(&prefix, "")).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn site(name: &str) -> String {
    format!("[[site]]\nname = '{name}'\nhosts = ['{name}.example']\nupstream = 'origin'\nchain = ['acl']\n")
}

const ORIGIN: &str = "[upstream.origin]\nservers = [{ url = 'http://a' }]\n";

#[test]
fn included_files_are_read_in_order_and_their_paths_are_their_own() {
    let main =
        format!("[server]\ninclude = ['shared.toml', 'sites.d/*.toml', 'sites.d/b.toml', 'none.d/*']\n{SMALL}{}", site("main"));
    let certificate = format!("{}[[certificate]]\ncert = 'a.pem'\nkey = 'a.key'\n", site("a"));
    let directory = Directory::new(
        "order",
        &[
            ("weir.toml", &main),
            ("shared.toml", &format!("{ORIGIN}[policy.acl]\nplugin = 'acl'\n")),
            ("sites.d/b.toml", &site("b")),
            ("sites.d/a.toml", &certificate),
            ("sites.d/.hidden.toml", "not TOML"),
            ("sites.d/notes.txt", "not TOML"),
        ],
    );
    let config = load(&directory.main()).unwrap();
    assert_eq!(config.sites.iter().map(|site| &*site.name).collect::<Vec<_>>(), ["main", "a", "b"]);
    assert_eq!(config.certificates[0].cert, directory.0.join("sites.d/a.pem"));
    assert_eq!(config.sites[2].at.to_string(), format!("{}:1", directory.0.join("sites.d/b.toml").display()));
}

#[test]
fn mistakes_of_all_files_are_shown_together() {
    let main =
        format!("[server]\ninclude = ['*.d/x', 'sites.d/*.toml']\nworkers = 0\n{SMALL}{ORIGIN}[policy.acl]\nplugin = 'acl'\n");
    let directory = Directory::new(
        "mistakes",
        &[
            ("weir.toml", &main),
            ("sites.d/a.toml", &format!("{}[limits]\nidle = '1s'\n", site("a"))),
            ("sites.d/b.toml", &format!("{}[policy.acl]\nplugin = 'other'\n[polcy.x]\n", site("a"))),
        ],
    );
    let expected = [
        "weir.toml:2: server.include: `*` in a directory name (*.d/x); `*` may only be used in the file name: \"sites.d/*.toml\"",
        "weir.toml:3: server.workers: must be from 1 to 1024 (0)",
        "sites.d/a.toml:6: limits: belongs in the main file; an included file holds certificate, policy, site and upstream",
        "sites.d/b.toml:2: site.name: already the name of the site at sites.d/a.toml:2 (\"a\"); give each site a name of its own",
        "sites.d/b.toml:3: site.hosts: already a host of site a at sites.d/a.toml:3 (\"a.example\"); \
         a host belongs to one site: remove it here or there",
        "sites.d/b.toml:6: policy.acl: already defined at weir.toml:8; rename or remove one of the two",
        "sites.d/b.toml:8: polcy: unknown key; did you mean `policy`?",
    ];
    assert_eq!(directory.refused(), expected);
}

#[test]
fn a_broken_file_is_named_and_what_it_may_define_is_not_missed() {
    let main = format!(
        "[server]\ninclude = ['gone.toml', 'shared.toml']\n{SMALL}[[site]]\nname = 'a'\nhosts = ['']\nupstream = 'origin'\n"
    );
    let directory = Directory::new("broken", &[("weir.toml", &main), ("shared.toml", "[upstream.origin\n")]);
    let lines = directory.refused();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("weir.toml:2: server.include: gone.toml: cannot be read: "), "{lines:?}");
    assert!(lines[1].starts_with("weir.toml:7: site.hosts: not a host (\"\")"), "{lines:?}");
    assert!(lines[2].starts_with("shared.toml:1: TOML syntax: "), "{lines:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_one_mistake_without_a_line() {
    let errors = load(Path::new("no-such-directory/weir.toml")).unwrap_err();
    let [error] = &errors.iter().collect::<Vec<_>>()[..] else { panic!("{errors}") };
    assert_eq!((&error.location, error.key.as_str()), (&None, "no-such-directory/weir.toml"));
    assert!(error.message.starts_with("cannot be read: "), "{error}");
    assert!(error.hint.is_some());

    let directory = Directory::new("utf8", &[]);
    fs::create_dir_all(&directory.0).unwrap();
    fs::write(directory.main(), b"a = 1\nb = '\xff'\n").unwrap();
    assert_eq!(directory.refused(), ["weir.toml: line 2 is not UTF-8 text"]);
}
