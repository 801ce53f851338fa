//! The benchmark itself, on a function that does nothing: that figures come out, and not how good they are.

use std::path::Path;

use bench::{Bootstrap, Effort, Instance, Subject, measure};
use bytes::Bytes;

fn hello() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hello"))
}

#[tokio::test]
async fn a_bootstrap_is_started_handed_events_and_ended() {
    let subject = Subject::hello("hello", hello());
    let effort = Effort { starts: 2, warm: 3 };

    let costs = measure(None, &[subject.clone(), subject], effort, &|_| {}).await.unwrap();

    assert_eq!(costs.len(), 2);
    for cost in costs {
        assert_eq!(cost.name, "hello");
        assert_eq!((cost.init.count(), cost.first.count(), cost.warm.count()), (2, 2, 6));
        assert!(cost.init.median().unwrap() > 0.0);
        // Where Linux counts it; a process that ran has used some.
        assert!(cost.cpu.median().is_none_or(|cpu| cpu > 0.0));
        assert!(cost.memory.median().unwrap() > 0.1);
        assert!(cost.allocations.is_none_or(|count| count > 1.0));
        assert!(cost.bytes > 100_000);
    }
}

#[tokio::test]
async fn an_event_is_answered_by_the_function() {
    let bootstrap = Subject::hello("hello", hello()).bootstrap;
    let mut instance = Instance::start(&bootstrap).await.unwrap();

    let refused = instance.invoke(&Bytes::from_static(b"{}")).await.unwrap_err().to_string();

    assert!(refused.starts_with("`hello` fails: "), "{refused}");
}

#[tokio::test]
async fn a_bootstrap_that_ends_is_told_of_with_what_it_said() {
    let bootstrap = Bootstrap {
        name: "ls".to_owned(),
        binary: "/bin/ls".into(),
        environment: [("TZ".to_owned(), "UTC".to_owned())].into(),
    };

    let failure = Instance::start(&bootstrap).await.unwrap_err().to_string();

    assert!(failure.starts_with("`ls` has ended (exit status: 0)"), "{failure}");
}
