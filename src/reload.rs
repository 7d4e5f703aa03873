//! Values made of files, made anew when the files change.
//!
//! The files are read every few seconds and compared by content. Kubernetes replaces a mounted secret by swapping a symbolic
//! link two directories above what a program opens; watches on files or their directory miss that, reading does not.
//! What is unusable, half-written or missing leaves the old value in place and is tried again at the next reading: it
//! may have been read in the middle of being written, or be good only from a date on.

use std::{
    fmt::{self, Debug, Display},
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::ReloadMetrics;

/// How often files are read by default. A new certificate is to serve within a minute of its arrival, and Kubernetes itself
/// takes up to that long to bring it; some kilobytes every ten seconds cost nothing.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// How long what is new must stay the same before it counts, by default: more than it takes to write a file in place. One after
/// the other may take longer; that must show in what they hold, as a key shows that it is another certificate's.
pub const SETTLE: Duration = Duration::from_millis(50);

/// Largest file that is read, in bytes. Whatever is larger was named by mistake.
const LARGEST: u64 = 1024 * 1024;

/// The bytes of the file at `path`, a regular one of at most 1 MiB. Blocks.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Others, such as pipes, may never end or not even open.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut content = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(content)
}

/// What to read, and how often.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What the files make up, for logs.
    pub what: &'static str,
    /// The files. Their contents are given to the parser in this order.
    pub paths: Vec<PathBuf>,
    /// The time between two readings.
    pub interval: Duration,
    /// How long what is new must stay the same before it counts.
    pub settle: Duration,
    /// Where it is counted.
    pub metrics: ReloadMetrics,
}

/// A file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {}: {reason}", path.display())]
pub struct Unreadable {
    path: PathBuf,
    /// The system's words.
    reason: String,
}

/// Why there is no value of these files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError<E> {
    /// A file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The contents make no value.
    #[error(transparent)]
    Unusable(E),
}

/// The newest usable value of some files. Cheap to clone; with the last clone the reading ends.
pub struct Reloaded<T> {
    current: watch::Receiver<Arc<T>>,
    reading: Arc<AbortOnDropHandle<()>>,
}

type Contents = Vec<Vec<u8>>;

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads the files and goes on reading them. `parse` is called once now, and again whenever what is read is not what
    /// serves; it must not block.
    pub async fn load<E, P>(watched: Watched, parse: P) -> Result<Self, LoadError<E>>
    where
        P: Fn(&[Vec<u8>]) -> Result<T, E> + Send + Sync + 'static,
        E: Display + Send + 'static,
    {
        let contents = read_all(&watched.paths).await?;
        let value = parse(&contents).map_err(LoadError::Unusable)?;
        let (sender, current) = watch::channel(Arc::new(value));
        let reading = tokio::spawn(keep_reading(watched, contents, parse, sender));
        Ok(Self { current, reading: Arc::new(AbortOnDropHandle::new(reading)) })
    }

    /// The value that serves now.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.borrow())
    }
}

async fn keep_reading<T, E, P>(watched: Watched, mut serving: Contents, parse: P, sender: watch::Sender<Arc<T>>)
where
    P: Fn(&[Vec<u8>]) -> Result<T, E>,
    E: Display,
{
    let Watched { what, paths, interval, settle, metrics } = watched;
    let mut ticks = interval_at(Instant::now() + interval, interval);
    // After a mount that hung, once is enough.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The last of what could not be used, so that each is told and counted once.
    let mut refused: Option<Result<Contents, Unreadable>> = None;
    let mut restlessness = Restlessness::default();
    loop {
        ticks.tick().await;
        let read = read_all(&paths).await;
        if read.as_ref().is_ok_and(|contents| *contents == serving) {
            refused = None;
            restlessness = Restlessness::default();
            metrics.pending(false);
            continue;
        }
        metrics.pending(true);
        // Files are read one after the other. What changes meanwhile may be half of the old and half of the new.
        sleep(settle).await;
        let again = read_all(&paths).await;
        if again != read {
            if restlessness.is_to_be_told() {
                tracing::warn!(what, readings = UNSETTLED, "changed files do not settle; what they held before stays");
            }
            continue;
        }
        restlessness = Restlessness::default();
        let outcome = match again {
            Ok(contents) => match parse(&contents) {
                Ok(value) => Ok((value, contents)),
                Err(error) => Err((error.to_string(), Ok(contents))),
            },
            Err(error) => Err((error.to_string(), Err(error))),
        };
        match outcome {
            Ok((value, contents)) => {
                sender.send_replace(Arc::new(value));
                metrics.loaded();
                metrics.pending(false);
                tracing::info!(what, "changed files were loaded");
                (serving, refused) = (contents, None);
            }
            Err((_, attempt)) if refused.as_ref() == Some(&attempt) => {}
            Err((error, attempt)) => {
                metrics.refused();
                tracing::warn!(what, error, "changed files are of no use; what they held before stays");
                refused = Some(attempt);
            }
        }
    }
}

/// So many readings in a row during which the files changed are no accident of writing: a minute, by default.
const UNSETTLED: u32 = 6;

/// How many readings in a row have found files that were just changing.
#[derive(Debug, Default)]
struct Restlessness(u32);

impl Restlessness {
    /// Counts one more. True once, until it is over.
    fn is_to_be_told(&mut self) -> bool {
        self.0 = self.0.saturating_add(1);
        self.0 == UNSETTLED
    }
}

/// In a thread where a mount that hangs holds up nothing else.
async fn read_all(paths: &[PathBuf]) -> Result<Contents, Unreadable> {
    let mut contents = Vec::with_capacity(paths.len());
    for path in paths {
        let file = path.clone();
        let read = spawn_blocking(move || read(&file)).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let unreadable = |error: io::Error| Unreadable { path: path.clone(), reason: error.to_string() };
        contents.push(read.map_err(unreadable)?);
    }
    Ok(contents)
}

impl<T> Clone for Reloaded<T> {
    fn clone(&self) -> Self {
        Self { current: self.current.clone(), reading: Arc::clone(&self.reading) }
    }
}

/// The value may hold a key.
impl<T> Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reloaded")
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// A directory that is gone when the test is over.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("glacier-gateway-reload-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    fn watched(paths: &[&Path]) -> Watched {
        Watched {
            what: "test",
            paths: paths.iter().map(|path| path.to_path_buf()).collect(),
            interval: Duration::from_millis(5),
            settle: SETTLE,
            metrics: ReloadMetrics::default(),
        }
    }

    /// Two numbers of which the first must be the smaller one.
    fn parse(contents: &[Vec<u8>]) -> Result<(u32, u32), String> {
        let number = |content: &[u8]| std::str::from_utf8(content).ok()?.parse().ok();
        match contents.iter().map(|content| number(content)).collect::<Option<Vec<_>>>().as_deref() {
            Some(&[a, b]) if a < b => Ok((a, b)),
            _ => Err("no two numbers in order".to_owned()),
        }
    }

    async fn until(condition: impl Fn() -> bool) {
        let met = async {
            while !condition() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, met).await.expect("it happens in time");
    }

    #[tokio::test]
    async fn a_change_is_taken_over_and_what_is_unusable_leaves_the_old_in_place() {
        let directory = Directory::new("change");
        let (a, b) = (directory.0.join("a"), directory.0.join("b"));
        fs::write(&a, "1").unwrap();
        fs::write(&b, "2").unwrap();
        let parsed = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&parsed);
        let counting = move |contents: &[Vec<u8>]| {
            counter.fetch_add(1, Ordering::SeqCst);
            parse(contents)
        };
        let reloaded = Reloaded::load(watched(&[&a, &b]), counting).await.unwrap();
        assert_eq!(*reloaded.current(), (1, 2));
        assert_eq!(parsed.load(Ordering::SeqCst), 1);

        fs::write(&a, "3").unwrap();
        // Tried, and tried again.
        until(|| parsed.load(Ordering::SeqCst) >= 3).await;
        assert_eq!(*reloaded.current(), (1, 2));

        fs::write(&b, "4").unwrap();
        until(|| *reloaded.current() == (3, 4)).await;

        fs::remove_file(&b).unwrap();
        fs::write(&a, "0").unwrap();
        sleep(2 * SETTLE).await;
        assert_eq!(*reloaded.current(), (3, 4));
        fs::write(&b, "5").unwrap();
        until(|| *reloaded.current() == (0, 5)).await;
    }

    /// As Kubernetes swaps them: all at once, but not between two of our readings.
    #[tokio::test]
    async fn no_mixture_of_old_and_new_files_is_ever_tried() {
        let directory = Directory::new("mixture");
        let swap = |version: u32| {
            let (name, next) = (version.to_string(), directory.0.join("next"));
            fs::create_dir(directory.0.join(&name)).unwrap();
            for file in 0..20 {
                fs::write(directory.0.join(&name).join(file.to_string()), &name).unwrap();
            }
            std::os::unix::fs::symlink(name, &next).unwrap();
            fs::rename(next, directory.0.join("data")).unwrap();
        };
        swap(1);
        let paths: Vec<_> = (0..20).map(|file| directory.0.join("data").join(file.to_string())).collect();
        let paths: Vec<_> = paths.iter().map(PathBuf::as_path).collect();
        let mixtures = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&mixtures);
        let parse = move |contents: &[Vec<u8>]| {
            if contents.iter().all(|content| *content == contents[0]) {
                return Ok(contents[0].clone());
            }
            counter.fetch_add(1, Ordering::SeqCst);
            Err("a mixture")
        };
        let reloaded = Reloaded::load(watched(&paths), parse).await.unwrap();
        for version in 2..200 {
            swap(version);
            sleep(Duration::from_millis(1)).await;
        }
        until(|| *reloaded.current() == b"199").await;
        assert_eq!(mixtures.load(Ordering::SeqCst), 0);
    }

    /// Each of these is a value, as a policy that is cut off between two rules is one.
    #[tokio::test]
    async fn what_is_still_being_written_is_not_taken_until_it_settles() {
        let directory = Directory::new("settle");
        let file = directory.0.join("a");
        fs::write(&file, "0").unwrap();
        let taken = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&taken);
        let parse = move |contents: &[Vec<u8>]| {
            seen.lock().unwrap().push(contents[0].clone());
            Ok::<_, String>(contents[0].clone())
        };
        let settle = Duration::from_secs(1);
        let reloaded = Reloaded::load(Watched { settle, ..watched(&[&file]) }, parse).await.unwrap();
        for written in 12..=15 {
            fs::write(&file, "0123456789abcdef".get(..=written).unwrap()).unwrap();
            sleep(Duration::from_millis(150)).await;
        }
        until(|| *reloaded.current() == b"0123456789abcdef").await;
        assert_eq!(taken.lock().unwrap().len(), 2, "the first and the last");
    }

    #[tokio::test]
    async fn at_the_start_there_must_be_a_value() {
        let directory = Directory::new("start");
        let (a, b) = (directory.0.join("a"), directory.0.join("b"));
        fs::write(&a, "2").unwrap();
        let missing = Reloaded::load(watched(&[&a, &b]), parse).await.unwrap_err();
        assert!(missing.to_string().starts_with(&format!("cannot read {}: No such file", b.display())), "{missing}");
        fs::write(&b, "1").unwrap();
        let unusable = Reloaded::load(watched(&[&a, &b]), parse).await.unwrap_err();
        assert_eq!(unusable, LoadError::Unusable("no two numbers in order".to_owned()));
    }

    #[test]
    fn files_that_never_settle_are_told_of_once() {
        let mut restlessness = Restlessness::default();
        let told: Vec<_> = (1..1000).filter(|_| restlessness.is_to_be_told()).collect();
        assert_eq!(told, [UNSETTLED]);
    }

    #[tokio::test]
    async fn reading_ends_with_the_last_clone() {
        let directory = Directory::new("end");
        let file = directory.0.join("a");
        fs::write(&file, "x").unwrap();
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let parse = move |contents: &[Vec<u8>]| Ok::<_, String>((Arc::clone(&held), contents.to_vec()));
        let reloaded = Reloaded::load(watched(&[&file]), parse).await.unwrap();
        let clone = reloaded.clone();
        drop(reloaded);
        fs::write(&file, "y").unwrap();
        until(|| clone.current().1 == [b"y"]).await;
        drop(clone);
        until(|| Arc::strong_count(&alive) == 1).await;
    }

    #[test]
    fn what_is_no_file_or_too_large_is_not_read() {
        let directory = Directory::new("large");
        assert!(read(&directory.0).is_err());
        assert!(read(Path::new("/dev/zero")).is_err());
        let file = directory.0.join("large");
        fs::write(&file, vec![b' '; 1024 * 1024]).unwrap();
        assert_eq!(read(&file).unwrap().len(), 1024 * 1024);
        fs::write(&file, vec![b' '; 1024 * 1024 + 1]).unwrap();
        assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
