//! Every file of `corpus/` through its target, once: what was found stays found, without libFuzzer.

use std::{collections::BTreeMap, fs, path::Path};

use akv_pkcs11_fuzz::{TARGETS, Target};

fn folder(target: &Target) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

fn corpus(target: &Target) -> BTreeMap<String, Vec<u8>> {
    let Ok(files) = fs::read_dir(folder(target)) else {
        return BTreeMap::new();
    };
    let paths = files.map(|file| file.expect("a file of the corpus").path());
    let named = paths.map(|path| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read(&path).expect("readable"))
    });
    named.collect()
}

#[test]
fn each_input_of_the_corpus_keeps_the_promises() {
    for target in TARGETS {
        let corpus = corpus(target);
        // What libFuzzer finds interesting is in target/; here is what a person chose.
        let count = corpus.len();
        assert!((1..=64).contains(&count), "corpus/{} has {count} files", target.name);
        for (name, input) in corpus {
            // Shown when the target panics.
            eprintln!("corpus/{}/{name}", target.name);
            (target.run)(&input);
        }
    }
}

/// What the tables make now keeps the promises, too; the files may be of earlier tables, which harms
/// nobody: they are where libFuzzer begins. `UPDATE_SEEDS=1 cargo test -p akv-pkcs11-fuzz` writes them;
/// other files of the corpus are what was found, and stay.
#[test]
fn the_corpus_has_the_seeds_that_the_tables_make() {
    for target in TARGETS {
        let corpus = corpus(target);
        for seed in (target.seeds)() {
            let path = folder(target).join(&seed.name);
            (target.run)(&seed.input);
            if std::env::var_os("UPDATE_SEEDS").is_some() {
                fs::create_dir_all(folder(target)).expect("a folder");
                fs::write(path, &seed.input).expect("written");
                continue;
            }
            assert!(
                corpus.contains_key(&seed.name),
                "{} is missing: UPDATE_SEEDS=1 cargo test -p akv-pkcs11-fuzz",
                path.display()
            );
        }
    }
}

#[test]
fn each_target_has_a_program_and_no_program_is_without_target() {
    let manifest = include_str!("../Cargo.toml");
    let programs: Vec<_> =
        manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")).collect();
    let programs: Vec<_> = programs.iter().filter_map(|rest| rest.strip_suffix(".rs\"")).collect();
    let mut wanted: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    wanted.sort_unstable();
    let mut found = programs.clone();
    found.sort_unstable();
    assert_eq!(found, wanted);
    for name in programs {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz_targets/{name}.rs"));
        let text = fs::read_to_string(path).expect("the program");
        assert!(text.contains(&format!("akv_pkcs11_fuzz::{name}::run")), "{text}");
    }
}
