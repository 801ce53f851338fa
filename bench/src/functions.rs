//! What a function costs by itself: its start, its first event, those that follow.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::stage::Case;
use crate::{Bootstrap, Failure, Instance, Samples, Stage};

/// After how many others the function that does nothing comes again: what it is for is to be compared with.
const INTERLEAVED: usize = 6;

/// Where the package `heaptrack` puts what counts allocations.
const HEAPTRACK: [&str; 2] =
    ["/usr/lib/heaptrack/libheaptrack_preload.so", "/usr/lib64/heaptrack/libheaptrack_preload.so"];

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often each binary is started.
    pub starts: usize,
    /// Events after the first, of each start.
    pub warm: usize,
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Subject {
    /// How it is started.
    pub bootstrap: Bootstrap,
    /// What it is handed, again and again.
    event: Bytes,
    /// Whether the table is another afterwards.
    changes: bool,
}

impl Subject {
    /// A function that needs nothing and greets whoever asks.
    #[must_use]
    pub fn hello(name: &str, binary: &Path) -> Self {
        let environment = [
            ("AWS_LAMBDA_FUNCTION_NAME", name),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/hello"),
            ("AWS_REGION", "us-east-1"),
        ];
        let environment: BTreeMap<_, _> = environment.map(|(name, value)| (name.into(), value.into())).into();
        let event = json!({
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": "/",
            "rawQueryString": "",
            "headers": { "host": "api.example.com", "user-agent": "axios/1.0.0" },
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "a1b2c3d4e5",
                "domainName": "api.example.com",
                "domainPrefix": "api",
                "http": {
                    "method": "GET",
                    "path": "/",
                    "protocol": "HTTP/1.1",
                    "sourceIp": "203.0.113.7",
                    "userAgent": "axios/1.0.0",
                },
                "requestId": "U7bcPjXsoAMEPJg=",
                "routeKey": "$default",
                "stage": "$default",
                "time": "24/Nov/2026:08:00:00 +0000",
                "timeEpoch": 1_795_507_200_000_u64,
            },
            "isBase64Encoded": false,
        });
        let bootstrap = Bootstrap { name: name.to_owned(), binary: binary.to_owned(), environment };
        Self { bootstrap, event: event.to_string().into(), changes: false }
    }

    pub(crate) fn of(case: &Case, bootstrap: Bootstrap) -> Self {
        Self { bootstrap, event: case.event(), changes: case.changes() }
    }

    async fn invoke(&self, instance: &mut Instance, stage: Option<&Stage>) -> Result<Duration, Failure> {
        let took = instance.invoke(&self.event).await?.took;
        if let (Some(stage), true) = (stage, self.changes) {
            stage.restore().await?;
        }
        Ok(took)
    }

    /// Allocations per event, as heaptrack counts them; none where it is not installed.
    async fn allocations(&self, stage: Option<&Stage>, events: u32) -> Result<Option<f64>, Failure> {
        let Some(heaptrack) = HEAPTRACK.into_iter().find(|path| Path::new(path).is_file()) else {
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        let counted = folder.path().join("counted");
        let mut bootstrap = self.bootstrap.clone();
        bootstrap.environment.extend([
            ("LD_PRELOAD".to_owned(), heaptrack.to_owned()),
            ("DUMP_HEAPTRACK_OUTPUT".to_owned(), counted.display().to_string()),
        ]);
        // One line each, of which the last few are not written yet.
        let allocations = || {
            let text = fs::read(&counted).map_err(|error| Failure::file(&counted, error.to_string()))?;
            let lines = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"+"));
            Ok::<_, Failure>(u32::try_from(lines.count()).unwrap_or(u32::MAX))
        };
        let mut instance = Instance::start(&bootstrap).await?;
        for _ in 0..events / 4 {
            self.invoke(&mut instance, stage).await?;
        }
        let before = allocations()?;
        for _ in 0..events {
            self.invoke(&mut instance, stage).await?;
        }
        let after = allocations()?;
        instance.end().await?;
        Ok((after > before).then(|| f64::from(after - before) / f64::from(events)))
    }
}

/// What a function costs.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// Which.
    pub name: String,
    /// From the start of the process to its first request for an event, in milliseconds.
    pub init: Samples,
    /// Processor time of that, in milliseconds.
    pub init_cpu: Samples,
    /// From the first event to its answer, in milliseconds.
    pub first: Samples,
    /// The same of the events after it.
    pub warm: Samples,
    /// Processor time of each of these, in microseconds: the mean of each start.
    pub cpu: Samples,
    /// The most memory that was resident, in MiB.
    pub memory: Samples,
    /// Allocations per event after the first ones; none where nothing counts them.
    pub allocations: Option<f64>,
    /// Bytes of the executable.
    pub bytes: u64,
}

/// Starts the `subjects` in turn, as often as `effort` says. The first is what the others are compared with, and
/// comes more often. `told` is told how far it is.
pub async fn measure(
    stage: Option<&Stage>,
    subjects: &[Subject],
    effort: Effort,
    told: &(dyn Fn(&str) + Sync),
) -> Result<Vec<Cost>, Failure> {
    let mut costs = Vec::new();
    for subject in subjects {
        let binary = &subject.bootstrap.binary;
        let bytes = fs::metadata(binary).map_err(|error| Failure::file(binary, error.to_string()))?.len();
        costs.push(Cost { name: subject.bootstrap.name.clone(), bytes, ..Cost::default() });
    }
    for start in 1..=effort.starts {
        told(&format!("functions: start {start} of {}", effort.starts));
        for (place, subject) in subjects.iter().enumerate() {
            let again =
                subjects.iter().zip(&mut costs).next().filter(|_| place > 0 && place % INTERLEAVED == 0);
            if let Some((hello, cost)) = again {
                once(stage, hello, effort, cost).await?;
            }
            if let Some(cost) = costs.get_mut(place) {
                once(stage, subject, effort, cost).await?;
            }
        }
    }
    told("functions: allocations");
    let events = u32::try_from(effort.warm).unwrap_or(u32::MAX).saturating_mul(2);
    for (subject, cost) in subjects.iter().zip(&mut costs) {
        cost.allocations = subject.allocations(stage, events).await?;
    }
    Ok(costs)
}

async fn once(
    stage: Option<&Stage>,
    subject: &Subject,
    effort: Effort,
    cost: &mut Cost,
) -> Result<(), Failure> {
    let mut instance = Instance::start(&subject.bootstrap).await?;
    cost.init.push(milliseconds(instance.init()));
    if let Some(cpu) = instance.cpu() {
        cost.init_cpu.push(milliseconds(cpu));
    }
    cost.first.push(milliseconds(subject.invoke(&mut instance, stage).await?));
    let before = instance.cpu();
    for _ in 0..effort.warm {
        cost.warm.push(milliseconds(subject.invoke(&mut instance, stage).await?));
    }
    if let (Some(before), Some(after), Ok(events)) = (before, instance.cpu(), u32::try_from(effort.warm)) {
        cost.cpu.push(milliseconds(after.saturating_sub(before)) * 1000.0 / f64::from(events.max(1)));
    }
    if let Some(memory) = instance.peak_memory() {
        cost.memory.push(f64::from(memory) / 1024.0);
    }
    instance.end().await
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
