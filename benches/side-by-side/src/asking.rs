//! How the programs that ask Glacier without a gateway are told what to do: a line `FIRST COUNT PARALLEL` on stdin, and
//! when the jobs from FIRST on have been asked for, a line with the median latency in nanoseconds on stdout.

use std::{
    io::{BufRead as _, Write as _},
    time::Instant,
};

use tokio::task::JoinSet;

use crate::Outcome;

/// Follows the orders until stdin ends; `ask` asks for one job.
pub async fn follow<A, F>(ask: A) -> Outcome<()>
where
    A: Fn(u32) -> F + Clone + Send + 'static,
    F: Future<Output = Outcome<()>> + Send,
{
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let numbers: Vec<u32> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let &[first, count, parallel] = numbers.as_slice() else { return Err("three numbers".into()) };
        let mut tasks = JoinSet::new();
        for lane in 0..parallel {
            let ask = ask.clone();
            tasks.spawn(async move {
                let mut latencies = Vec::new();
                for key in (first + lane..first + count).step_by(parallel as usize) {
                    let start = Instant::now();
                    ask(key).await?;
                    latencies.push(start.elapsed());
                }
                Outcome::Ok(latencies)
            });
        }
        let mut latencies = Vec::new();
        while let Some(lane) = tasks.join_next().await {
            latencies.extend(lane??);
        }
        latencies.sort_unstable();
        let median = latencies.get(latencies.len() / 2).copied().unwrap_or_default();
        writeln!(std::io::stdout(), "{}", median.as_nanos())?;
    }
    Ok(())
}

/// The one argument: the upstream's base URL.
pub fn upstream() -> Outcome<String> {
    Ok(std::env::args().nth(1).ok_or("one argument: the upstream's URL")?)
}
