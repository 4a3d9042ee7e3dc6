//! The program itself, run to its end.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// What came of a run of the program: exit code, standard output, standard error.
pub type Ran = (i32, String, String);

/// Runs a command with `input`.
pub async fn run(mut command: Command, input: String) -> Ran {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = move || -> Output {
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Whoever does not read its input may have ended by now.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}
