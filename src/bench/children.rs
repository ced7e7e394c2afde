//! Processes of a measurement, each on its core; they end with it.

use super::BenchError;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Begins the line that a process of the harness prints when it listens; its address follows.
pub const READY: &str = "listening on ";
/// How long a process may take to get ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps this thread and all that it starts from now on to one core.
///
/// # Errors
/// When the machine has no such core.
pub fn keep_to(core: usize) -> Result<(), BenchError> {
    let mut set = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(BenchError::Core { core, source: std::io::ErrorKind::InvalidInput.into() });
    }
    set.set(core);
    sched_setaffinity(None, &set).map_err(|error| BenchError::Core { core, source: error.into() })
}

/// Whether this thread may run on `core`.
///
/// # Errors
/// When the machine has no such core, or this process may not use it.
pub fn check(core: usize) -> Result<(), BenchError> {
    let cores = sched_getaffinity(None).map_err(|error| BenchError::Core { core, source: error.into() })?;
    if core < CpuSet::MAX_CPU && cores.is_set(core) {
        return Ok(());
    }
    let source = std::io::Error::other("it is not among the cores that this process may use");
    Err(BenchError::Core { core, source })
}

/// A running process and the file with its output.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` on `core`, or wherever this thread may run.
    ///
    /// # Errors
    /// When it cannot be started or the core does not exist.
    pub fn start(
        name: &str,
        program: &Path,
        args: &[String],
        core: Option<usize>,
        folder: &Path,
    ) -> Result<Self, BenchError> {
        let log = folder.join(format!("{name}.log"));
        let failed = |source| BenchError::Start { what: name.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let file = File::create(&log).map_err(failed)?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(file.try_clone().map_err(failed)?).stderr(file);
        // A child starts on the cores of the thread that starts it.
        let former = sched_getaffinity(None).map_err(|error| failed(error.into()))?;
        if let Some(core) = core {
            keep_to(core)?;
        }
        let child = command.spawn().map_err(failed);
        sched_setaffinity(None, &former).map_err(|error| failed(error.into()))?;
        Ok(Self { name: name.to_owned(), child: child?, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the line that says where it listens.
    ///
    /// # Errors
    /// When it ends before, or does not say so in time.
    pub async fn listens(&mut self) -> Result<SocketAddr, BenchError> {
        let log = self.log.clone();
        let said = || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(READY)).map(str::to_owned);
            std::future::ready(line.and_then(|address| address.parse().ok()))
        };
        self.until(said).await
    }

    /// Waits until `ready` brings something.
    ///
    /// # Errors
    /// When the process ends before, or it takes too long.
    pub async fn until<T, F: Future<Output = Option<T>>>(
        &mut self,
        mut ready: impl FnMut() -> F,
    ) -> Result<T, BenchError> {
        let start = Instant::now();
        loop {
            if let Some(value) = ready().await {
                return Ok(value);
            }
            let ended = self.child.try_wait().ok().flatten();
            let problem = match ended {
                Some(status) => format!("ended by itself ({status})"),
                None if start.elapsed() > PATIENCE => {
                    format!("was not ready within {} s", PATIENCE.as_secs())
                }
                None => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let skip = text.lines().count().saturating_sub(5);
            let tail = text.lines().skip(skip).collect::<Vec<_>>().join("\n");
            return Err(BenchError::NotReady {
                what: self.name.clone(),
                problem,
                log: self.log.clone(),
                tail,
            });
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A folder for logs and files of one measurement, removed with it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new one among the temporary files.
    pub fn new() -> Self {
        Self(std::env::temp_dir().join(format!("pointsman-bench-{}", std::process::id())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it.
    ///
    /// # Errors
    /// When that fails.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, BenchError> {
        let path = self.0.join(name);
        let written = std::fs::create_dir_all(&self.0).and_then(|()| std::fs::write(&path, text));
        written.map(|()| path.clone()).map_err(|source| BenchError::File { path, source })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _kept = std::fs::remove_dir_all(&self.0);
    }
}
