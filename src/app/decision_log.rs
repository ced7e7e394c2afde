//! Writes the decision log: a thread of its own turns entries into lines and appends them to a file or standard output.
//!
//! A file that was moved or removed is made anew, at the next line or at SIGHUP. When it cannot be written, lines are
//! counted as failed and the next ones are tried again. Requests never wait for any of it.

use crate::clock::Clock;
use crate::config::{DecisionLogOptions, LogTarget};
use crate::director::DecisionLog;
use crate::director::decision_log::{LogItem, LogKey, LogSettings, Origin, Writing};
use crate::shutdown::{Stage, Tasks};
use crate::telemetry::logs::Throttle;
use crate::telemetry::names;
use anyhow::Context as _;
use metrics::Counter;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How long the end of the process waits for lines that are not written yet.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Bytes that are written at once, a line more or less.
const BATCH_BYTES: usize = 256 * 1024;
/// A failure is told of once in this time.
const TELL_EACH: Duration = Duration::from_secs(10);
/// How often it is asked whether the file is still where it was.
const LOOK_EACH: Duration = Duration::from_secs(1);

/// What the writing thread is told besides the queue.
#[derive(Debug, Default)]
struct Told {
    reopen: AtomicBool,
    close: AtomicBool,
}

/// The log and the thread that writes it.
pub(super) struct Writer {
    log: DecisionLog,
    told: Arc<Told>,
    ended: oneshot::Receiver<()>,
}

impl Writer {
    /// Starts a log. A file that cannot be opened is an error now rather than a surprise later; a pipe is opened when there
    /// is something to write, as that waits for a reader.
    pub(super) fn start(options: &DecisionLogOptions, clock: &Clock) -> anyhow::Result<Self> {
        let settings = LogSettings {
            key: key(options.key_file.as_deref())?,
            sample: options.sample,
            sessions: options.sessions.clone(),
            queue: options.queue,
        };
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (log, items, writing) =
            DecisionLog::channel(settings, clock.clone(), Origin { at: clock.now(), unix });
        let out = Out::new(&options.target)?;
        let told = Arc::new(Told::default());
        let (end, ended) = oneshot::channel();
        let lines = Lines::new(items, writing, out, Arc::clone(&told), clock.clone());
        let work = move || {
            lines.write_all();
            // Nobody may be waiting any more.
            let _gone = end.send(());
        };
        std::thread::Builder::new()
            .name("decision log".to_owned())
            .spawn(work)
            .context("cannot start the thread that writes the decision log")?;
        Ok(Self { log, told, ended })
    }

    /// The log for those who make decisions.
    pub(super) fn log(&self) -> &DecisionLog {
        &self.log
    }

    /// Has SIGHUP open the file anew.
    pub(super) fn follow_signals(&self, tasks: &Tasks) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (told, log) = (Arc::clone(&self.told), self.log.clone());
        tasks.spawn(Stage::Last, "decision log signals", |stop| async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = hangup.recv() => {
                        told.reopen.store(true, Relaxed);
                        log.wake();
                    }
                }
            }
        });
        Ok(())
    }

    /// Writes what is left, as far as that is possible in a short while.
    pub(super) async fn close(self) {
        self.told.close.store(true, Relaxed);
        self.log.wake();
        if tokio::time::timeout(CLOSE_WITHIN, self.ended).await.is_err() {
            tracing::warn!(
                "the decision log could not be written to its end in time: its disk or reader is stuck"
            );
        }
    }
}

fn key(file: Option<&Path>) -> anyhow::Result<LogKey> {
    let Some(path) = file else { return Ok(LogKey::random()) };
    let named = || format!("--decision-log-key-file: {}", path.display());
    let secret = std::fs::read(path).with_context(named)?;
    LogKey::of(&secret).with_context(named)
}

/// Where lines go.
enum Out {
    Stdout,
    File { path: PathBuf, open: Option<Open> },
}

struct Open {
    file: File,
    /// Device and inode, by which it is known again.
    identity: (u64, u64),
    looked: Instant,
}

impl Out {
    fn new(target: &LogTarget) -> anyhow::Result<Self> {
        let path = match target {
            LogTarget::Stdout => return Ok(Self::Stdout),
            LogTarget::File(path) => path.clone(),
        };
        let pipe = std::fs::metadata(&path).is_ok_and(|is| is.file_type().is_fifo());
        let opened = if pipe { None } else { Some(Open::new(&path)) };
        let open = opened
            .transpose()
            .with_context(|| format!("--decision-log: cannot write to {}", path.display()))?;
        Ok(Self::File { path, open })
    }

    /// Appends whole lines.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::File { path, open } => {
                if open.as_mut().is_some_and(|file| file.is_elsewhere(path)) {
                    *open = None;
                }
                let mut file = match open.take() {
                    Some(file) => file,
                    None => Open::new(path)?,
                };
                file.append(lines)?;
                *open = Some(file);
                Ok(())
            }
        }
    }

    fn close_file(&mut self) {
        if let Self::File { open, .. } = self {
            *open = None;
        }
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        // Who asks whom may be nobody else's business.
        let mut file = File::options().append(true).create(true).mode(0o640).open(path)?;
        let is = file.metadata()?;
        if is.file_type().is_file() && is.len() > 0 && !ends_with_newline(path).unwrap_or(false) {
            file.write_all(b"\n")?;
        }
        Ok(Self { file, identity: (is.dev(), is.ino()), looked: Instant::now() })
    }

    /// Appends whole lines; of what cannot be written whole nothing stays.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let before = self.file.metadata().ok().filter(|is| is.file_type().is_file()).map(|is| is.len());
        self.file.write_all(lines).inspect_err(|_e| {
            if let Some(before) = before {
                // Where this fails as well, the next opening ends the line that was cut short.
                let _best_effort = self.file.set_len(before);
            }
        })
    }

    /// Whether the path means another file by now. Asked now and then.
    fn is_elsewhere(&mut self, path: &Path) -> bool {
        if self.looked.elapsed() < LOOK_EACH {
            return false;
        }
        self.looked = Instant::now();
        std::fs::metadata(path).map_or(true, |is| (is.dev(), is.ino()) != self.identity)
    }
}

/// Whether the last line is whole: a process that was killed may have cut it short.
fn ends_with_newline(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// The work of the thread.
struct Lines {
    items: Receiver<LogItem>,
    writing: Writing,
    out: Out,
    told: Arc<Told>,
    clock: Clock,
    written: Counter,
    failed: Counter,
    throttle: Throttle,
}

impl Lines {
    fn new(items: Receiver<LogItem>, writing: Writing, out: Out, told: Arc<Told>, clock: Clock) -> Self {
        let count = |outcome| metrics::counter!(names::DECISION_LOG_LINES, "outcome" => outcome);
        let (written, failed) = (count("written"), count("failed"));
        Self { items, writing, out, told, clock, written, failed, throttle: Throttle::new(TELL_EACH) }
    }

    /// Writes until it is told to end and the queue is empty.
    fn write_all(mut self) {
        let mut batch = Vec::new();
        while let Ok(first) = self.items.recv() {
            let mut next = Some(first);
            while next.is_some() {
                let lines = self.fill(&mut batch, &mut next);
                if self.told.reopen.swap(false, Relaxed) {
                    self.out.close_file();
                }
                self.append(&mut batch, lines);
            }
            if self.told.close.load(Relaxed) {
                return;
            }
        }
    }

    /// Makes lines of what waits, until the batch is large enough; the number of lines. `next` is what comes after.
    fn fill(&mut self, batch: &mut Vec<u8>, next: &mut Option<LogItem>) -> u64 {
        let mut lines = 0;
        while let Some(item) = next.take() {
            if let LogItem::Entry(entry) = item {
                self.writing.write(&entry, batch);
                lines += 1;
            }
            *next = self.items.try_recv().ok();
            if batch.len() >= BATCH_BYTES {
                break;
            }
        }
        lines
    }

    fn append(&mut self, batch: &mut Vec<u8>, lines: u64) {
        if lines == 0 {
            return;
        }
        match self.out.append(batch) {
            Ok(()) => self.written.increment(lines),
            Err(error) => {
                self.failed.increment(lines);
                if let Some(others) = self.throttle.allow(self.clock.now()) {
                    tracing::error!(%error, lines, failures_before = others, "the decision log cannot be written; these lines are lost, the next ones are tried again");
                }
            }
        }
        batch.clear();
        batch.shrink_to(2 * BATCH_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path) -> Out {
        Out::new(&LogTarget::File(path.to_owned())).unwrap()
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    /// As if a while had passed since the file was last looked at.
    fn later(out: &mut Out) {
        let Out::File { open: Some(open), .. } = out else { panic!("it is open") };
        open.looked = open.looked.checked_sub(LOOK_EACH).unwrap();
    }

    #[test]
    fn lines_are_appended_and_one_that_was_cut_short_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "{}\n{\"at_m").unwrap();
        file(&path).append(b"1\n").unwrap();
        file(&path).append(b"2\n").unwrap();
        assert_eq!(text(&path), "{}\n{\"at_m\n1\n2\n");
    }

    #[test]
    fn a_file_that_was_moved_or_removed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut out = file(&path);
        out.append(b"1\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        later(&mut out);
        out.append(b"2\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        out.close_file();
        out.append(b"3\n").unwrap();
        later(&mut out);
        out.append(b"4\n").unwrap();
        assert_eq!((text(&moved), text(&path)), ("1\n".to_owned(), "3\n4\n".to_owned()));
    }

    #[test]
    fn a_failure_is_an_error_each_time_and_the_next_lines_are_tried_again() {
        let mut out = file(Path::new("/dev/full"));
        assert_eq!(out.append(b"1\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(out.append(b"2\n").is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let Out::File { path: to, .. } = &mut out else { panic!("a file") };
        to.clone_from(&path);
        out.append(b"3\n").unwrap();
        assert_eq!(text(&path), "3\n");
    }

    #[test]
    fn a_place_that_is_none_and_a_key_that_is_too_short_are_said() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Out::new(&LogTarget::File(folder.path().to_owned())).err().unwrap();
        assert!(format!("{refused:#}").starts_with("--decision-log: cannot write to"), "{refused:#}");
        let short = folder.path().join("key");
        std::fs::write(&short, "short\n").unwrap();
        let refused = format!("{:#}", key(Some(&short)).unwrap_err());
        assert!(refused.starts_with("--decision-log-key-file: ") && refused.contains("16"), "{refused}");
        std::fs::write(&short, "long enough for a key").unwrap();
        assert_eq!(key(Some(&short)).unwrap(), key(Some(&short)).unwrap());
        assert_ne!(key(None).unwrap(), key(None).unwrap());
    }
}
