//! The fault table, `tests/FAULTS.md`, compared with the comments that name its rows.
//!
//! A test proves a row if its doc comment (in Python, its docstring) names the id; the row then lists the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

const TABLE: &str = "tests/FAULTS.md";

/// Where sources are, whether folders below are searched too, and what tests found there are called after.
const FOLDERS: [(&str, bool); 4] = [("src", true), ("tests/it", true), ("tests/soak", true), ("tests/interop", false)];

struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_python(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|e| e == "py")
    }
}

struct Row<'a> {
    line: usize,
    id: &'a str,
    fault: &'a str,
    expected: &'a str,
    tests: Vec<&'a str>,
}

#[derive(Debug, PartialEq)]
struct Test<'a> {
    /// As `cargo test` and pytest print it.
    name: String,
    line: usize,
    comment: Vec<&'a str>,
}

/// Whether a word has the shape of an id. Two of that shape are none of ours: the store, and gRPC's proposals, which
/// [`ids`] knows by the word before them.
fn is_id(word: &str) -> bool {
    let (letter, number) = word.split_at_checked(1).unwrap_or_default();
    letter.chars().all(|c| c.is_ascii_uppercase())
        && (1..=2).contains(&number.len())
        && number.chars().all(|c| c.is_ascii_digit())
        && word != "S3"
}

fn ids(text: &str) -> Vec<&str> {
    let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let before = std::iter::once(&"").chain(&words);
    words.iter().zip(before).filter(|(word, before)| is_id(word) && **before != "gRFC").map(|(word, _)| *word).collect()
}

/// Whether ids are named as a range, which leaves those in the middle out.
fn has_range(text: &str) -> bool {
    let spaced = text.replace(['–', '-'], " to ");
    let words: Vec<_> =
        spaced.split_whitespace().map(|word| word.trim_end_matches(['.', ',', ':', ';', ')'])).collect();
    words.windows(3).any(|three| is_id(three[0]) && three[1] == "to" && is_id(three[2]))
}

fn rows(table: &str) -> Vec<Row<'_>> {
    let lines = table.lines().zip(1..).filter_map(|(text, line)| {
        let cells: Vec<_> = text.strip_prefix("| ")?.strip_suffix('|')?.split(" | ").map(str::trim).collect();
        let id = *cells.first().filter(|id| is_id(id))?;
        let [_, fault, expected, tests] = cells[..] else { panic!("{TABLE}:{line}: {} cells, not 4", cells.len()) };
        let tests = tests.split(", ").map(|name| name.trim_matches('`')).filter(|name| !name.is_empty()).collect();
        Some(Row { line, id, fault, expected, tests })
    });
    lines.collect()
}

/// The names of tests in the text around the tables.
fn names_in_prose(table: &str) -> impl Iterator<Item = (usize, &str)> {
    let prose = table.lines().zip(1..).filter(|(text, _)| !text.starts_with('|'));
    prose.flat_map(|(text, line)| {
        text.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).map(move |name| (line, name))
    })
}

/// The lines of a source that are comments.
fn comments(source: &Source) -> Vec<(usize, &str)> {
    let lines = source.text.lines().zip(1..);
    if !source.is_python() {
        return lines
            .filter(|(text, _)| text.trim_start().starts_with("//"))
            .map(|(text, line)| (line, text))
            .collect();
    }
    let mut in_string = false;
    let mut found = Vec::new();
    for (text, line) in lines {
        let quotes = text.matches("\"\"\"").count();
        if in_string || quotes > 0 || text.trim_start().starts_with('#') {
            found.push((line, text));
        }
        in_string ^= quotes % 2 == 1;
    }
    found
}

fn tests_in(source: &Source) -> Vec<Test<'_>> {
    if source.is_python() { python_tests(source) } else { rust_tests(source) }
}

fn python_tests(source: &Source) -> Vec<Test<'_>> {
    let file = source.path.rsplit('/').next().unwrap_or_default();
    let lines: Vec<_> = source.text.lines().collect();
    let definitions = lines.iter().enumerate().filter_map(|(at, text)| {
        let name = text.strip_prefix("def ").filter(|name| name.starts_with("test_"))?.split('(').next()?;
        let body = at + 1 + lines[at..].iter().position(|text| text.ends_with(':'))?;
        let mut comment = Vec::new();
        if let Some(first) = lines.get(body).and_then(|text| text.trim_start().strip_prefix("\"\"\"")) {
            comment.push(first);
            if !first.contains("\"\"\"") {
                let rest = &lines[body + 1..];
                comment.extend(&rest[..=rest.iter().position(|text| text.contains("\"\"\"")).unwrap_or(0)]);
            }
        }
        Some(Test { name: format!("{file}::{name}"), line: at + 1, comment })
    });
    definitions.collect()
}

fn rust_tests(source: &Source) -> Vec<Test<'_>> {
    let path = source.path.strip_suffix(".rs").unwrap_or_default();
    let file = path.strip_prefix("src/").or_else(|| path.strip_prefix("tests/it/")).unwrap_or(path).replace('/', "::");
    // The modules in the file around the line, each with its indentation.
    let mut modules: Vec<(&str, &str)> = Vec::new();
    let (mut comment, mut is_test, mut in_attribute) = (Vec::new(), false, false);
    let mut found = Vec::new();
    for (text, line) in source.text.lines().zip(1..) {
        let code = text.trim_start();
        let indent = &text[..text.len() - code.len()];
        if let Some(doc) = code.strip_prefix("///") {
            comment.push(doc);
        } else if in_attribute || code.starts_with("#[") {
            is_test |= code.starts_with("#[test]") || code.starts_with("#[tokio::test");
            in_attribute = !code.ends_with(']');
        } else {
            let function = code.strip_prefix("async fn ").or_else(|| code.strip_prefix("fn "));
            if let Some(function) = function.filter(|_| is_test) {
                let name = function.split('(').next().unwrap_or_default();
                let modules = modules.iter().map(|(_, module)| *module);
                let name = std::iter::once(file.as_str()).chain(modules).chain([name]).collect::<Vec<_>>().join("::");
                found.push(Test { name, line, comment: std::mem::take(&mut comment) });
            } else if let Some(module) = code.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {")) {
                modules.push((indent, module));
            } else if code == "}" {
                modules.pop_if(|(opened, _)| *opened == indent);
            }
            comment.clear();
            is_test = false;
        }
    }
    found
}

/// What to change where, so that the table and the comments agree.
fn problems(table: &str, sources: &[Source]) -> Vec<String> {
    let rows = rows(table);
    let mut problems = Vec::new();
    let known: BTreeSet<_> = rows.iter().map(|row| row.id).collect();
    for (row, before) in rows.iter().skip(1).zip(1..).map(|(row, end)| (row, &rows[..end])) {
        if before.iter().any(|other| other.id == row.id) {
            problems.push(format!("{TABLE}:{}: remove the second row {}", row.line, row.id));
        }
    }
    let tests: BTreeMap<_, _> = sources
        .iter()
        .flat_map(|source| tests_in(source).into_iter().map(move |test| (test.name.clone(), (source, test))))
        .collect();
    // By id: the tests whose comments name it.
    let mut proofs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, (source, test)) in &tests {
        let comment = test.comment.join("\n");
        if has_range(&comment) {
            problems.push(format!("{}:{}: name each id of the range in the comment above", source.path, test.line));
        }
        for id in test.comment.iter().flat_map(|line| ids(line)) {
            proofs.entry(id).or_default().insert(name);
        }
    }
    for source in sources {
        for (line, text) in comments(source) {
            for id in ids(text).into_iter().filter(|id| !known.contains(id)) {
                problems.push(format!("{}:{line}: names {id}, which has no row in {TABLE}: add one", source.path));
            }
        }
    }
    for row in &rows {
        let proofs = proofs.remove(row.id).unwrap_or_default();
        problems.extend(problems_of(row, &proofs, |name| {
            tests.get(name).map(|(source, test)| format!("{}:{}", source.path, test.line))
        }));
    }
    for (line, name) in names_in_prose(table).filter(|(_, name)| !tests.contains_key(*name)) {
        problems.push(format!("{TABLE}:{line}: remove `{name}`: there is no such test"));
    }
    problems
}

/// The same for one row; `place` knows where a test is.
fn problems_of(row: &Row<'_>, proofs: &BTreeSet<&str>, place: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let Row { line, id, fault, expected, tests } = row;
    let row_is = format!("{TABLE}:{line}: row {id}");
    let mut problems = Vec::new();
    let mut right = Vec::new();
    for name in tests {
        match place(name) {
            _ if right.contains(name) => problems.push(format!("{row_is}: remove `{name}`: it is there twice")),
            _ if proofs.contains(name) => right.push(*name),
            Some(place) => {
                problems.push(format!("{row_is}: remove `{name}`, or name {id} in the comment of that test ({place})"));
            }
            None => problems.push(format!("{row_is}: remove `{name}`: there is no such test")),
        }
    }
    for name in proofs.iter().filter(|name| !tests.contains(name)) {
        let place = place(name).unwrap_or_default();
        problems.push(format!("{row_is}: add `{name}`: its comment ({place}) names {id}"));
        right.push(name);
    }
    if right.is_empty() {
        problems.push(format!("{row_is}: no test proves it: write one, and name {id} in its comment"));
    } else if !problems.is_empty() {
        let right: Vec<_> = right.iter().map(|name| format!("`{name}`")).collect();
        problems.push(format!("  so that it reads\n| {id} | {fault} | {expected} | {} |", right.join(", ")));
    }
    problems
}

fn collect(folder: &Path, is_deep: bool, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if is_deep {
                collect(&path, is_deep, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs" || e == "py") {
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path: name, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

#[test]
fn each_row_of_the_fault_table_names_exactly_the_tests_that_name_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for (folder, is_deep) in FOLDERS {
        collect(&root.join(folder), is_deep, &mut sources);
    }
    let count = |is_python| {
        let sources = sources.iter().filter(|source| source.is_python() == is_python);
        sources.map(|source| tests_in(source).len()).sum::<usize>()
    };
    let (rust, python) = (count(false), count(true));
    assert!(rust > 500 && python > 50, "{rust} and {python} tests found");
    let table = fs::read_to_string(root.join(TABLE)).unwrap();
    assert!(rows(&table).len() > 70, "the rows were not found");
    let problems = problems(&table, &sources);
    assert!(problems.is_empty(), "{} and the comments disagree:\n{}", TABLE, problems.join("\n"));
}

#[test]
fn whatever_disagrees_is_told_with_the_line_to_change() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let room =
        "//! The room (gRFC A9).\n\n/// U1, with S3.\n#[tokio::test]\nasync fn one() {\n}\n\n#[test]\nfn two() {}\n";
    let inner = "mod tests {\n    /// U2.\n    #[expect(\n        lint\n    )]\n    #[test]\n    fn three() {}\n}\n";
    let python = "def test_four(\n    a,\n):\n    \"\"\"U1, and\n    U2.\"\"\"\n\ndef test_five():\n    pass\n";
    let sources =
        [source("tests/it/room.rs", room), source("src/it.rs", inner), source("tests/interop/test_a.py", python)];
    let first = "| U1 | a fault | an end | `room::one`, `test_a.py::test_four` |\n";
    let second = "| U2 | another | an end | `it::tests::three`, `test_a.py::test_four` |\n";
    let told = |table: &str| problems(table, &sources);
    assert_eq!(told(&[first, second, "All of it: `room::two`.\n"].concat()), Vec::<String>::new());

    let stale = "| U2 | another | an end | `room::two`, `room::gone`, `it::tests::three`, `it::tests::three` |\n";
    let expected = [
        "tests/FAULTS.md:2: row U2: remove `room::two`, or name U2 in the comment of that test (tests/it/room.rs:9)",
        "tests/FAULTS.md:2: row U2: remove `room::gone`: there is no such test",
        "tests/FAULTS.md:2: row U2: remove `it::tests::three`: it is there twice",
        "tests/FAULTS.md:2: row U2: add `test_a.py::test_four`: its comment (tests/interop/test_a.py:1) names U2",
        "  so that it reads\n| U2 | another | an end | `it::tests::three`, `test_a.py::test_four` |",
    ];
    assert_eq!(told(&[first, stale].concat()), expected);

    let expected = [
        "src/it.rs:2: names U2, which has no row in tests/FAULTS.md: add one",
        "tests/interop/test_a.py:5: names U2, which has no row in tests/FAULTS.md: add one",
        "tests/FAULTS.md:2: remove `room::gone`: there is no such test",
    ];
    assert_eq!(told(&[first, "All of it: `room::gone`.\n"].concat()), expected);

    let expected = ["tests/FAULTS.md:3: row U3: no test proves it: write one, and name U3 in its comment"];
    assert_eq!(told(&[first, second, "| U3 | a third | an end | |\n"].concat()), expected);
    assert_eq!(told(&[first, second, second].concat())[0], "tests/FAULTS.md:3: remove the second row U2");

    let range = source("tests/it/room.rs", "/// U1–U3.\n#[test]\nfn six() {}\n");
    let row = |id| format!("| {id} | a fault | an end | `room::six` |\n");
    let expected = ["tests/it/room.rs:3: name each id of the range in the comment above"];
    assert_eq!(problems(&[row("U1"), row("U3")].concat(), &[range]), expected);
}
