//! What changes in the table reaches the function that its stream triggers.

use super::*;

const ALL: &str = "StartingPosition: TRIM_HORIZON";
const REPORTS: &str = "StartingPosition: TRIM_HORIZON, FunctionResponseTypes: [ReportBatchItemFailures]";

/// A stack whose stream triggers the function as `properties` of the event say.
async fn start(properties: &str, data: Data) -> Local {
    let template = format!(
        r"
Resources:
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{{ AttributeName: pk, AttributeType: S }}]
      KeySchema: [{{ AttributeName: pk, KeyType: HASH }}]
      StreamSpecification: {{ StreamViewType: NEW_AND_OLD_IMAGES }}
  Letters:
    Type: AWS::SQS::Queue
  MisbehavingFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: target/lambda/misbehaving/
      Timeout: 60
      Events:
        Stream: {{ Type: DynamoDB, Properties: {{ Stream: !GetAtt Table.StreamArn, {properties} }} }}
"
    );
    Local::start_with(|options| {
        std::fs::write(&options.template, template).unwrap();
        options.data = data;
    })
    .await
}

async fn put(local: &Local, key: &str, action: &str) {
    let item = json!({ "pk": { "S": key }, "do": { "S": action } });
    let (status, answer) = dynamodb(local, "PutItem", &json!({ "TableName": "Table", "Item": item })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

/// Changes that come in one batch, since they are committed together.
async fn put_together(local: &Local, items: &[(&str, &str)]) {
    let puts: Vec<_> = items
        .iter()
        .map(|(key, action)| {
            json!({ "Put": { "TableName": "Table", "Item": { "pk": { "S": key }, "do": { "S": action } } } })
        })
        .collect();
    let (status, answer) = dynamodb(local, "TransactWriteItems", &json!({ "TransactItems": puts })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

/// The keys of the records of each event, joined.
fn batches(local: &Local) -> Vec<String> {
    let keys = |event: &Value| {
        let records = event["Records"].as_array().unwrap();
        let keys = records
            .iter()
            .map(|record| record.pointer("/dynamodb/Keys/pk/S").and_then(Value::as_str).unwrap());
        keys.collect::<Vec<_>>().join(",")
    };
    events(local).iter().map(keys).collect()
}

async fn settled(local: &Local) {
    assert!(local.stack.settled(LIMIT).await, "{:?}", local.logged());
    // It has answered; once a later line of the same process is there, so are the earlier ones.
    let marks = || told(local, "misbehaving | out mark").len();
    let before = marks();
    local.stack.invoke("misbehaving", br#"{"do":"log:mark"}"#.to_vec()).await.unwrap();
    eventually(|| marks() > before).await;
}

#[tokio::test]
async fn a_change_reaches_the_function_in_the_form_of_aws() {
    let local = start(&format!("{ALL}, BatchSize: 1"), Data::Memory).await;
    put(&local, "a", "one").await;
    put(&local, "a", "two").await;
    let key = json!({ "TableName": "Table", "Key": { "pk": { "S": "a" } } });
    dynamodb(&local, "DeleteItem", &key).await;

    settled(&local).await;

    let mut events = events(&local);
    let (one, two) = (
        json!({ "pk": { "S": "a" }, "do": { "S": "one" } }),
        json!({ "pk": { "S": "a" }, "do": { "S": "two" } }),
    );
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let mut numbers = Vec::new();
    for (event, name, old, new) in [
        (0, "INSERT", None, Some(&one)),
        (1, "MODIFY", Some(&one), Some(&two)),
        (2, "REMOVE", Some(&two), None),
    ] {
        let event = &mut events[event];
        let record = event["Records"][0].as_object_mut().unwrap();
        assert!(record.remove("eventID").unwrap().is_string());
        let change = record["dynamodb"].as_object_mut().unwrap();
        let number = change.remove("SequenceNumber").unwrap().as_str().unwrap().to_owned();
        assert!(number.len() >= 21 && number.bytes().all(|byte| byte.is_ascii_digit()), "{number}");
        numbers.push(number);
        assert!(change.remove("SizeBytes").unwrap().is_u64());
        let time = change.remove("ApproximateCreationDateTime").unwrap().as_u64().unwrap();
        assert!((now - 60..=now).contains(&time));
        let mut expected = json!({
            "eventName": name,
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "us-east-1",
            "eventSourceARN": "arn:aws:dynamodb:us-east-1:000000000000:table/Table/stream/local",
            "dynamodb": { "Keys": { "pk": { "S": "a" } }, "StreamViewType": "NEW_AND_OLD_IMAGES" },
        });
        for (image, item) in [("OldImage", old), ("NewImage", new)] {
            if let Some(item) = item {
                expected["dynamodb"][image] = item.clone();
            }
        }
        assert_eq!(*event, json!({ "Records": [expected] }));
    }
    assert_eq!(events.len(), 3);
    assert!(numbers.is_sorted());
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_not_told() {
    let local = start(ALL, Data::Memory).await;
    put(&local, "a", "same").await;
    settled(&local).await;
    put(&local, "a", "same").await;
    settled(&local).await;
    assert_eq!(batches(&local), ["a"]);
}

#[tokio::test]
async fn records_come_in_their_order_one_batch_at_a_time() {
    let local = start(&format!("{REPORTS}, BatchSize: 3"), Data::Memory).await;
    let keys: Vec<_> = (0..20).map(|index| format!("{index:02}")).collect();
    for key in &keys {
        put(&local, key, "sleep:10").await;
    }

    settled(&local).await;

    let batches = batches(&local);
    assert_eq!(batches.join(",").split(',').collect::<Vec<_>>(), keys);
    assert!(batches.iter().all(|batch| batch.split(',').count() <= 3), "{batches:?}");
    assert_eq!(local.stack.instances_started("misbehaving"), 1);
}

#[tokio::test]
async fn a_batch_that_is_not_full_waits_as_long_as_its_window() {
    let window = format!("{ALL}, BatchSize: 3, MaximumBatchingWindowInSeconds: 1");
    let local = start(&window, Data::Memory).await;
    put(&local, "a", "").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(batches(&local), [""; 0]);
    put(&local, "b", "").await;
    settled(&local).await;
    assert_eq!(batches(&local), ["a,b"]);

    let began = std::time::Instant::now();
    put_together(&local, &[("c", ""), ("d", ""), ("e", "")]).await;
    settled(&local).await;
    assert_eq!(batches(&local), ["a,b", "c,d,e"]);
    assert!(began.elapsed() < Duration::from_millis(900), "a full batch does not wait");
}

#[tokio::test]
async fn only_what_a_filter_matches_reaches_the_function() {
    let filters = r#"FilterCriteria: { Filters: [
        { Pattern: '{"eventName":["INSERT"],"dynamodb":{"NewImage":{"do":{"S":["yes"]}}}}' },
        { Pattern: '{"dynamodb":{"Keys":{"pk":{"S":[{"prefix":"always-"}]}}}}' } ] }"#;
    let data = TempDir::new().unwrap();
    let local = start(&format!("{ALL}, {filters}"), Data::Directory(data.path().to_owned())).await;
    for (key, action) in [("a", "yes"), ("b", "no"), ("always-c", "no"), ("b", "yes"), ("d", "no")] {
        put(&local, key, action).await;
    }

    settled(&local).await;

    assert_eq!(batches(&local).join(","), "a,always-c");
    // What is not wanted counts as handled.
    let kept = std::fs::read_to_string(data.path().join("stream.json")).unwrap();
    put(&local, "e", "no").await;
    settled(&local).await;
    assert_ne!(std::fs::read_to_string(data.path().join("stream.json")).unwrap(), kept);
    assert_eq!(batches(&local).join(","), "a,always-c");
}

#[tokio::test]
async fn a_partial_failure_is_tried_again_from_the_record_that_failed() {
    let local = start(REPORTS, Data::Memory).await;
    put_together(&local, &[("a", ""), ("b", "report:2"), ("c", "")]).await;

    settled(&local).await;

    assert_eq!(batches(&local), ["a,b,c", "b,c", "b,c"]);
    assert_eq!(told(&local, "2 records failed at attempt").len(), 2);
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_fails_the_whole_batch() {
    let properties = format!("{REPORTS}, MaximumRetryAttempts: 1");
    let local = start(&properties, Data::Memory).await;
    put_together(&local, &[("a", ""), ("b", r#"return:{"batchItemFailures":[{"itemIdentifier":"7"}]}"#)])
        .await;
    settled(&local).await;
    assert_eq!(batches(&local), ["a,b", "a,b"]);
}

#[tokio::test]
async fn without_report_batch_item_failures_any_answer_is_a_success() {
    let local = start(ALL, Data::Memory).await;
    put(&local, "a", "report:9").await;
    settled(&local).await;
    assert_eq!(batches(&local), ["a"]);
}

#[tokio::test]
async fn a_batch_that_fails_is_bisected_and_tried_again_until_it_goes_to_the_dead_letters() {
    let data = TempDir::new().unwrap();
    let properties = format!(
        "{ALL}, MaximumRetryAttempts: 1, BisectBatchOnFunctionError: true, \
         DestinationConfig: {{ OnFailure: {{ Type: SQS, Destination: !GetAtt Letters.Arn }} }}"
    );
    let local = start(&properties, Data::Directory(data.path().to_owned())).await;
    let began = std::time::Instant::now();
    put_together(&local, &[("a", ""), ("b", ""), ("c", "fail:99"), ("d", "")]).await;

    settled(&local).await;
    put(&local, "e", "").await;
    settled(&local).await;

    assert_eq!(batches(&local), ["a,b,c,d", "a,b", "c,d", "c", "c", "d", "e"]);
    // Before a,b; again before c and c, twice as long.
    assert!(began.elapsed() >= Duration::from_millis(200 + 200 + 400), "{:?}", began.elapsed());
    let failed = &events(&local)[3]["Records"][0];
    let number = failed["dynamodb"]["SequenceNumber"].as_str().unwrap();
    let given_up = told(&local, "given up");
    assert_eq!(given_up.len(), 1, "{given_up:?}");
    for part in ["1 record of the stream of `Table` given up at attempt 2", number, "failed 4 times"] {
        assert!(given_up[0].contains(part), "{given_up:?}");
    }
    let letters = std::fs::read_to_string(data.path().join("dead-letters.jsonl")).unwrap();
    assert_eq!(letters.lines().count(), 1);
    let letter: Value = serde_json::from_str(&letters).unwrap();
    assert_eq!(letter["requestContext"]["condition"], "RetryAttemptsExhausted");
    assert_eq!(letter["requestContext"]["approximateInvokeCount"], 2);
    assert_eq!(
        letter["requestContext"]["functionArn"],
        "arn:aws:lambda:us-east-1:000000000000:function:MisbehavingFunction"
    );
    let batch = &letter["DDBStreamBatchInfo"];
    assert_eq!(batch["startSequenceNumber"], number);
    assert_eq!(batch["endSequenceNumber"], number);
    assert_eq!(batch["batchSize"], 1);
    assert_eq!(batch["streamArn"], failed["eventSourceARN"]);
}

#[tokio::test]
async fn without_a_limit_a_batch_is_tried_again_until_it_succeeds() {
    let local = start(ALL, Data::Memory).await;
    put(&local, "a", "fail:3").await;
    assert!(!local.stack.settled(Duration::from_millis(300)).await, "it has not been handled");
    settled(&local).await;
    assert_eq!(batches(&local), ["a"; 4]);
}

#[tokio::test]
async fn after_a_restart_nothing_comes_again_and_nothing_is_lost() {
    let data = TempDir::new().unwrap();
    let directory = || Data::Directory(data.path().to_owned());
    let local = start(ALL, directory()).await;
    put(&local, "a", "").await;
    settled(&local).await;
    assert_eq!(batches(&local), ["a"]);
    local.stack.stop().await;

    // Written while nobody follows the stream.
    let local = start(&format!("{ALL}, Enabled: false"), directory()).await;
    put(&local, "b", "").await;
    local.stack.stop().await;

    let local = start(ALL, directory()).await;
    settled(&local).await;
    assert_eq!(batches(&local), ["b"]);
}

#[tokio::test]
async fn a_batch_that_a_stop_broke_off_comes_again() {
    let data = TempDir::new().unwrap();
    let directory = || Data::Directory(data.path().to_owned());
    // What was handled before it does not.
    let local = start(&format!("{ALL}, BatchSize: 1"), directory()).await;
    put(&local, "a", "").await;
    put(&local, "b", "sleep:30000").await;
    eventually(|| batches(&local) == ["a", "b"]).await;

    let began = std::time::Instant::now();
    local.stack.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "a stop does not wait for the batch");
    let lines = local.lines.lock().unwrap().clone();
    assert!(!lines.iter().any(|line| line.contains("failed")), "a stop is no failure: {lines:?}");

    let local = start(ALL, directory()).await;
    eventually(|| batches(&local) == ["b"]).await;
}

#[tokio::test]
async fn a_stack_that_is_dropped_mid_batch_follows_the_stream_no_further() {
    let data = TempDir::new().unwrap();
    let directory = || Data::Directory(data.path().to_owned());
    let local = start(ALL, directory()).await;
    put(&local, "a", "sleep:30000").await;
    eventually(|| batches(&local) == ["a"]).await;
    let Local { stack, lines, folder } = local;

    drop(stack);

    // Whatever of it were left would hold the folder.
    let mut again = options(folder.path(), &Arc::default());
    again.data = directory();
    let mut tries = 0;
    while let Err(error) = Stack::start(again.clone()).await {
        assert!(matches!(error, StartError::DataInUse { .. }), "{error}");
        tries += 1;
        assert!(tries < 500, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lines = lines.lock().unwrap().clone();
    assert!(!lines.iter().any(|line| line.contains("failed")), "a stop is no failure: {lines:?}");
}

#[tokio::test]
async fn a_trigger_at_latest_sees_what_comes_after_its_first_start_and_all_of_it() {
    let data = TempDir::new().unwrap();
    let directory = || Data::Directory(data.path().to_owned());
    let local = start("StartingPosition: LATEST, Enabled: false", directory()).await;
    put(&local, "before", "").await;
    settled(&local).await;
    local.stack.stop().await;

    let local = start("StartingPosition: LATEST", directory()).await;
    put(&local, "a", "sleep:30000").await;
    eventually(|| batches(&local) == ["a"]).await;
    local.stack.stop().await;

    let local = start("StartingPosition: LATEST", directory()).await;
    eventually(|| batches(&local) == ["a"]).await;
}

#[tokio::test]
async fn nothing_is_invoked_while_nothing_changes() {
    let local = start(ALL, Data::Memory).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(local.stack.instances_started("misbehaving"), 0);

    put(&local, "a", "").await;
    settled(&local).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(batches(&local), ["a"]);
}

#[tokio::test]
async fn a_change_is_handled_soon_though_nobody_asks() {
    let local = start(ALL, Data::Memory).await;
    put(&local, "warm", "").await;
    settled(&local).await;
    let began = std::time::Instant::now();
    put(&local, "a", "").await;
    eventually(|| batches(&local).len() == 2).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_file_of_positions_that_makes_no_sense_keeps_the_stack_from_starting() {
    let data = TempDir::new().unwrap();
    std::fs::write(data.path().join("stream.json"), "{").unwrap();
    let folder = TempDir::new().unwrap();
    let mut options = options(folder.path(), &Arc::default());
    options.data = Data::Directory(data.path().to_owned());

    let error = Stack::start(options.clone()).await.unwrap_err().to_string();

    assert!(error.starts_with("cannot use ") && error.contains("stream.json"), "{error}");
    // Nothing holds the folder.
    std::fs::remove_file(data.path().join("stream.json")).unwrap();
    Stack::start(options).await.unwrap();
}
