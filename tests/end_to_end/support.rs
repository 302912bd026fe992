//! Running programs, and files for them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The root of the repository, where the programs run.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// An example program, which cargo builds next to the tests.
pub(crate) struct Program(pub(crate) &'static str);

impl Program {
    /// Starts it; input and output are pipes.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        let test = std::env::current_exe().unwrap();
        let target = test.parent().and_then(Path::parent).unwrap();
        let path =
            target.join("examples").join(self.0).with_extension(std::env::consts::EXE_EXTENSION);
        Command::new(path)
            .args(args)
            .current_dir(root())
            .env_remove("POSTTRAIN_DEVICE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`cargo test --workspace` or `cargo build --examples` builds the program")
    }

    /// A run with this standard input.
    pub(crate) fn run(&self, args: &[&str], input: &str) -> Output {
        let mut child = self.start(args);
        // A program that does not read its input may have ended.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Standard output of a run that must succeed.
    pub(crate) fn stdout(&self, args: &[&str]) -> String {
        self.answer(args, "").0
    }

    /// Standard output and error of a run that must succeed.
    pub(crate) fn answer(&self, args: &[&str], input: &str) -> (String, String) {
        let output = self.run(args, input);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {stderr}");
        (String::from_utf8(output.stdout).unwrap(), stderr)
    }

    /// The message of a run that must fail, with nothing on standard output.
    pub(crate) fn failure(&self, args: &[&str]) -> String {
        let output = self.run(args, "");
        let (stdout, stderr) = (output.stdout, String::from_utf8(output.stderr).unwrap());
        assert!(!output.status.success(), "{args:?} should fail");
        assert!(stdout.is_empty(), "{args:?} prints {:?}", String::from_utf8_lossy(&stdout));
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        stderr
    }
}

/// A folder for the files of a test.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}
