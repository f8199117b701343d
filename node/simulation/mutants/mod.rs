//! Wrong versions of the logic, each of which the simulation must catch: `make sim-mutants`. None is compiled into the
//! product: each is a copy of the sources with one text replaced, built on its own under the target folder.

mod list;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use self::list::{MUTANTS, Mutant, NOT_TOLD_APART};
use crate::histories::{HISTORIES, number};

fn node() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The target folder that this program was built in: `<target>/<triple>/<profile>/deps/<program>`.
fn workshop() -> PathBuf {
    let program = env::current_exe().expect("the path of this program");
    program.ancestors().nth(4).expect("a target folder").join("mutants")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder for the copy");
    for entry in fs::read_dir(from).expect("a source folder").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            write_if_new(&target, &fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// Keeps the time of a file that stays as it is, so that nothing is built twice.
fn write_if_new(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::write(path, text).expect("a copy can be written");
}

fn prepare(mutant: &Mutant, workshop: &Path) {
    let folder = workshop.join(mutant.name);
    let logic = node().join("src/logic");
    copy(&logic, &folder.join("src/logic"));
    let source = fs::read_to_string(logic.join(mutant.file)).expect("the file of a mutant");
    let found = source.matches(mutant.text).count();
    assert_eq!(found, 1, "{}: its text stands {found} times in {}: {}", mutant.name, mutant.file, mutant.text);
    write_if_new(&folder.join("src/logic").join(mutant.file), &source.replace(mutant.text, mutant.instead));
    write_if_new(&folder.join("src/lib.rs"), "#![allow(warnings)]\npub mod logic;\n");
    // All dependencies of the node, also those that the logic does not use: so cargo takes what it has built already.
    let real = fs::read_to_string(node().join("Cargo.toml")).expect("the node's manifest");
    let (_, dependencies) = real.split_once("[dependencies]").expect("dependencies");
    let (dependencies, _) = dependencies.split_once("[lints]").expect("lints after the dependencies");
    let manifest = format!(
        "[package]\nname = \"{}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[lib]\nname = \"mizuya_node\"\ntest = false\ndoctest = false\n\n\
         [[test]]\nname = \"{}\"\npath = \"{}\"\n\n[dependencies]{dependencies}",
        mutant.name,
        mutant.name,
        node().join("simulation/main.rs").display()
    );
    write_if_new(&folder.join("Cargo.toml"), &manifest);
}

/// One workspace with a package a mutant, with the dependencies and the lock of the real one.
fn prepare_all(chosen: &[&Mutant]) -> PathBuf {
    let workshop = workshop();
    for mutant in chosen {
        prepare(mutant, &workshop);
    }
    let root = node().join("..");
    let real = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace's manifest");
    let wire = format!("path = \"{}\"", node().join("wire").display());
    let (_, shared) = real.split_once("[workspace.dependencies]").expect("shared dependencies");
    let (shared, rest) = shared.split_once("[workspace.lints").expect("lints after the dependencies");
    let (_, profile) = rest.split_once("[profile.ci]").expect("the profile");
    let profile = profile.split("\n[").next().expect("its text");
    let shared = shared.replace("path = \"node/wire\"", &wire);
    let shared: Vec<&str> = shared.lines().filter(|line| !line.starts_with("mizuya-node")).collect();
    let shared = shared.join(
        "
",
    );
    let members: Vec<String> = chosen.iter().map(|mutant| format!("\"{}\"", mutant.name)).collect();
    let manifest = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n[workspace.dependencies]\n{shared}\n\
         [profile.ci]{profile}\n\n[profile.ci.build-override]\nopt-level = 0\n",
        members.join(", ")
    );
    write_if_new(&workshop.join("Cargo.toml"), &manifest);
    let lock = fs::read_to_string(root.join("Cargo.lock")).expect("the workspace's lock");
    if !workshop.join("Cargo.lock").exists() {
        write_if_new(&workshop.join("Cargo.lock"), &lock);
    }
    copy(&root.join(".cargo"), &workshop.join(".cargo"));
    workshop
}

/// Builds all mutants in one go: only they and this simulation are compiled, side by side. Their programs by name.
fn build(workshop: &Path) -> BTreeMap<String, PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--profile", "ci", "--workspace", "--tests", "--keep-going", "--quiet"])
        .args(["--message-format", "json"])
        .current_dir(workshop)
        .env("CARGO_TARGET_DIR", workshop.parent().expect("the target folder"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let built = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = |built: &serde_json::Value| {
        let program = built["executable"].as_str().filter(|_| built["target"]["kind"][0] == "test")?;
        Some((built["target"]["name"].as_str()?.to_owned(), PathBuf::from(program)))
    };
    built.filter_map(|built| program(&built)).collect()
}

/// Plays histories on a mutant, on all cores, until its invariant catches it; or the story that must. Returns whether
/// it did, and the line for the table.
fn catch(mutant: &Mutant, program: &Path) -> (bool, String) {
    if mutant.caught_by.contains("::") {
        let output = Command::new(program).args(["--exact", mutant.caught_by]).output();
        let output = output.expect("the program of a mutant runs");
        let text = String::from_utf8_lossy(&output.stdout);
        return (text.contains("test result: FAILED. 0 passed; 1 failed;"), "   as a story".to_owned());
    }
    let output = Command::new(program)
        .args(["--exact", "histories::whatever_happens_the_cluster_keeps_its_promises", "--nocapture"])
        .env("UNTIL", mutant.caught_by)
        .env("HISTORIES", number("HISTORIES").unwrap_or(HISTORIES).to_string())
        .env_remove("SEED")
        .output()
        .expect("the program of a mutant runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let caught = text.lines().find_map(|line| line.strip_prefix("CAUGHT "));
    let missed = || {
        let told = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
        Some(format!("{}  {}", told("NOT CAUGHT ")?, told("found: ")?))
    };
    let said = caught.map(str::to_owned).or_else(missed);
    (caught.is_some(), said.unwrap_or_else(|| "it ended before it was caught".to_owned()))
}

#[test]
fn every_mutant_fits_the_sources() {
    for mutant in MUTANTS.iter().chain(NOT_TOLD_APART.iter().map(|(mutant, _)| mutant)) {
        let path = node().join("src/logic").join(mutant.file);
        let source = fs::read_to_string(&path).expect("the file of a mutant");
        assert_eq!(source.matches(mutant.text).count(), 1, "{} in {}: {}", mutant.name, mutant.file, mutant.text);
    }
}

#[test]
#[ignore = "takes minutes; `make sim-mutants` runs it"]
fn every_mutant_is_caught_by_its_invariant() {
    let only = env::var("ONLY").unwrap_or_default();
    let named = |mutant: &&Mutant| only.split(',').any(|part| mutant.name.contains(part));
    let others = NOT_TOLD_APART.iter().map(|(mutant, _)| mutant).filter(|_| !only.is_empty());
    let chosen: Vec<&Mutant> = MUTANTS.iter().chain(others).filter(named).collect();
    let workshop = prepare_all(&chosen);
    let programs = build(&workshop);
    println!(
        "{:<52}{:<30}{:>10}{:>10}{:>14}{:>8}{:>8}{:>8}{:>16}",
        "mutant", "caught by", "histories", "faults", "acknowledged", "lost", "wrong", "stale", "unavailable ms"
    );
    let mut missed = Vec::new();
    for mutant in &chosen {
        let played = programs.get(mutant.name).map(|program| catch(mutant, program));
        let (caught, line) = played.unwrap_or((false, "it cannot be built".to_owned()));
        println!("{:<52}{:<30}{line}", mutant.name, if caught { mutant.caught_by } else { "NOT CAUGHT" });
        if !caught {
            missed.push(mutant.name);
        }
    }
    for (mutant, why) in NOT_TOLD_APART {
        println!("not told apart: {:<52}{why}", mutant.name);
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
