use proptest::prelude::*;

use super::*;

/// A template with `parameters`, and one function whose variable `VALUE` is `value`.
fn with(preamble: &str, value: &str) -> String {
    format!(
        "{preamble}\nResources:\n  Table: {{ Type: AWS::DynamoDB::Table, Properties: {{}} }}\n  Queue: {{ Type: \
         AWS::SQS::Queue }}\n  Socket: {{ Type: AWS::ApiGatewayV2::Api, Properties: {{ ProtocolType: WEBSOCKET, \
         RouteSelectionExpression: a }} }}\n  SocketStage: {{ Type: AWS::ApiGatewayV2::Stage, Properties: {{ ApiId: \
         !Ref Socket, AutoDeploy: true, StageName: !Join ['-', [dev, 1]] }} }}\n  F:\n    Type: \
         AWS::Serverless::Function\n    Properties:\n      CodeUri: target/lambda/f/\n      Environment:\n        \
         Variables:\n          VALUE: {value}\n"
    )
}

fn evaluate(text: &str) -> Result<Template, TemplateError> {
    evaluate_with(text, &[])
}

fn evaluate_with(text: &str, overrides: &[(&str, &str)]) -> Result<Template, TemplateError> {
    let overrides = overrides.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Source::parse(text)?.evaluate(&overrides.collect())
}

const PREAMBLE: &str = r#"
Parameters:
  Stage: { Type: String, Default: dev }
  Empty: { Type: String, Default: "" }
  Origins: { Type: CommaDelimitedList, Default: "a, b,c" }
Mappings:
  Sizes: { dev: { memory: 128 }, prod: { memory: 1024 } }
Conditions:
  IsDev: !Equals [!Ref Stage, dev]
  IsProd: { Fn::Not: [{ Condition: IsDev }] }
  Both: !And [!Condition IsDev, !Condition IsProd]
  Either: !Or [!Condition IsDev, !Condition IsProd]
"#;

/// What `value` comes to in a function's environment.
fn value_of(value: &str) -> Result<Option<String>, TemplateError> {
    evaluate(&with(PREAMBLE, value)).map(|template| template.functions[0].environment.get("VALUE").cloned())
}

#[test]
fn each_intrinsic_function_has_its_value() {
    for (value, expected) in [
        ("plain", "plain"),
        ("007", "007"),
        ("true", "true"),
        ("'quoted'", "quoted"),
        ("!Ref Stage", "dev"),
        ("{ Ref: Stage }", "dev"),
        ("!Ref Table", "Table"),
        ("!Ref Empty", ""),
        ("!Ref AWS::Region", "us-east-1"),
        ("!Ref AWS::AccountId", "000000000000"),
        ("!Ref AWS::Partition", "aws"),
        ("!Ref AWS::URLSuffix", "amazonaws.com"),
        ("!Ref AWS::StackName", "bucket-api"),
        ("!GetAtt Table.Arn", "arn:aws:dynamodb:us-east-1:000000000000:table/Table"),
        ("!GetAtt [F, Arn]", "arn:aws:lambda:us-east-1:000000000000:function:F"),
        (
            "{ Fn::GetAtt: Table.StreamArn }",
            "arn:aws:dynamodb:us-east-1:000000000000:table/Table/stream/local",
        ),
        ("!GetAtt Queue.Arn", "arn:aws:sqs:us-east-1:000000000000:Queue"),
        ("!GetAtt Queue.QueueName", "Queue"),
        ("!GetAtt Socket.ApiId", "Socket"),
        ("!GetAtt Socket.ApiEndpoint", "wss://Socket.execute-api.us-east-1.amazonaws.com"),
        ("!Ref Socket", "Socket"),
        ("!Ref SocketStage", "dev-1"),
        ("!Sub 'wss://${Socket}/${SocketStage}'", "wss://Socket/dev-1"),
        (
            "!Sub '${Stage}/${Table}/${Table.Arn}/${AWS::Region}/${!Stage}'",
            "dev/Table/arn:aws:dynamodb:us-east-1:000000000000:table/Table/us-east-1/${Stage}",
        ),
        ("!Sub ['${a}-${Stage}', { a: !Ref Table }]", "Table-dev"),
        ("{ Fn::Sub: 'no variables, $ and {}' }", "no variables, $ and {}"),
        ("!Join ['-', [a, !Ref Stage, b]]", "a-dev-b"),
        ("!Join ['+', !Ref Origins]", "a+b+c"),
        ("!Select [1, !Ref Origins]", "b"),
        ("!Select [1, !Split ['.', x.y.z]]", "y"),
        ("!FindInMap [Sizes, !Ref Stage, memory]", "128"),
        ("!If [IsDev, yes, no]", "yes"),
        ("!If [IsProd, yes, no]", "no"),
        ("!If [Both, yes, no]", "no"),
        ("!If [Either, yes, no]", "yes"),
        ("{ Fn::If: [Either, { Fn::Join: ['', [a, b]] }, no] }", "ab"),
    ] {
        assert_eq!(value_of(value).unwrap().as_deref(), Some(expected), "{value}");
    }
}

#[test]
fn no_value_is_no_variable() {
    assert_eq!(value_of("!Ref AWS::NoValue").unwrap(), None);
    assert_eq!(value_of("!If [IsProd, x, !Ref AWS::NoValue]").unwrap(), None);
}

#[test]
fn what_cannot_be_evaluated_is_named_with_its_place() {
    for (value, reason) in [
        ("!Ref Nothing", "there is no `Nothing` to refer to"),
        ("!Sub '${Nothing}'", "there is no `Nothing` to refer to"),
        ("!Sub '${Stage'", "`${` without `}` in `Sub`"),
        ("!Sub '${Origins}'", "`Origins` is not text, which `Sub` needs"),
        ("!Sub [a]", "`Sub` takes a text, or a text and a map of variables"),
        ("!GetAtt Table", "`GetAtt` takes a resource and an attribute"),
        ("!GetAtt Nothing.Arn", "there is no resource `Nothing`"),
        ("!GetAtt Table.Size", "the local stack does not know the attribute `Size` of `Table`"),
        ("!ImportValue x", "the local stack does not know the intrinsic function `ImportValue`"),
        ("{ Fn::Cidr: [a] }", "the local stack does not know the intrinsic function `Cidr`"),
        ("!Join ['-']", "`Join` takes a separator and a list"),
        ("!Join ['-', [[a]]]", "`Join` joins a list of texts"),
        ("!Select [3, [a]]", "`Select` finds no item `3` in a list of 1"),
        ("!Select [x, [a]]", "`Select` finds no item `x` in a list of 1"),
        ("!Split ['', a]", "the separator of `Split` must not be empty"),
        ("!FindInMap [Sizes, test, memory]", "there is no mapping `Sizes.test.memory`"),
        ("!If [Nothing, a, b]", "there is no condition `Nothing`"),
        ("!If [IsDev, a]", "`If` takes the name of a condition and two values"),
        ("[a]", "`VALUE` must be text"),
        ("\"a\\0b\"", "`VALUE` cannot be an environment variable"),
    ] {
        let error = value_of(value).unwrap_err();
        let TemplateError::Property { path, reason: found, .. } = &error else { panic!("{value}: {error}") };
        assert_eq!(found, reason, "{value}");
        assert!(path.starts_with("Resources.F.Properties.Environment"), "{value}: {path}");
    }
}

#[test]
fn a_condition_that_depends_on_itself_is_an_error() {
    let preamble = "Conditions:\n  A: !Not [!Condition B]\n  B: !Not [!Condition A]";
    let error = evaluate(&with(preamble, "!If [A, x, y]")).unwrap_err().to_string();
    assert!(error.contains("depends on itself"), "{error}");
}

#[test]
fn conditions_that_name_others_twice_take_no_time() {
    let chain: Vec<_> = (1..60)
        .map(|number| {
            let before = number - 1;
            format!("  C{number}: !And [!Condition C{before}, !Condition C{before}]\n")
        })
        .collect();
    let preamble = format!("Conditions:\n  C0: !Equals [a, a]\n{}", chain.concat());
    let template = evaluate(&with(&preamble, "!If [C59, x, y]")).unwrap();
    assert_eq!(template.functions[0].environment["VALUE"], "x");
}

#[test]
fn text_that_grows_without_bound_is_refused() {
    let mut value = "'0123456789'".to_owned();
    for _ in 0..25 {
        value = format!("!Sub ['${{a}}${{a}}', {{ a: {value} }}]");
    }
    let error = value_of(&value).unwrap_err().to_string();
    assert!(error.contains("longer than 65536 bytes"), "{error}");
}

#[test]
fn a_resource_whose_condition_does_not_hold_is_not_there() {
    let text = r"
Conditions: { Never: !Equals [a, b] }
Resources:
  F: { Type: AWS::Serverless::Function, Condition: Never, Properties: { CodeUri: target/lambda/f/ } }
";
    assert_eq!(evaluate(text).unwrap().functions, []);
}

/// A template whose only parameter `P` is declared so.
fn parameter(declaration: &str, given: Option<&str>) -> Result<String, TemplateError> {
    let text = format!("Parameters:\n  P: {declaration}\nResources: {{}}\n");
    let overrides: Vec<_> = given.into_iter().map(|value| ("P", value)).collect();
    evaluate_with(&text, &overrides).map(|template| template.parameters["P"].clone())
}

#[test]
fn a_parameter_has_its_override_or_else_its_default() {
    assert_eq!(parameter("{ Type: String, Default: a }", None).unwrap(), "a");
    assert_eq!(parameter("{ Type: String, Default: a }", Some("b")).unwrap(), "b");
    assert_eq!(parameter("{ Type: String, Default: a }", Some("")).unwrap(), "");
    assert_eq!(parameter("{ Type: Number, Default: 5 }", None).unwrap(), "5");
    assert_eq!(parameter("{ Type: CommaDelimitedList, Default: 'a, b' }", None).unwrap(), "a,b");
}

#[test]
fn a_value_against_a_constraint_is_refused_by_name() {
    for (declaration, given, reason) in [
        ("{ Type: String }", None, "has no default: set it with --parameter-overrides"),
        ("{ Type: Number, Default: 1 }", Some("many"), "must be a number, and `many` is not"),
        ("{ Type: Number, MinValue: 2 }", Some("1"), "must be at least 2, and `1` is not"),
        ("{ Type: Number, MaxValue: 2 }", Some("3"), "must be at most 2, and `3` is not"),
        ("{ Type: String, MinLength: 1 }", Some(""), "must have at least 1 characters, and `` is not"),
        ("{ Type: String, MaxLength: 1 }", Some("äö"), "must have at most 1 characters, and `äö` is not"),
        ("{ Type: String, AllowedValues: [a, b] }", Some("c"), "must be one of a, b, and `c` is not"),
        ("{ Type: Number, AllowedValues: [1, 3] }", Some("2"), "must be one of 1, 3, and `2` is not"),
        ("{ Type: String, AllowedPattern: 'a|b' }", Some("ab"), "must match a|b, and `ab` is not"),
        (
            "{ Type: String, AllowedPattern: 'a+', ConstraintDescription: must be many a }",
            Some("b"),
            "must be many a, and `b` is not",
        ),
        (
            "{ Type: String, NoEcho: true, MinLength: 9 }",
            Some("hush"),
            "must have at least 9 characters, and the given value is not",
        ),
        ("{ Type: CommaDelimitedList, AllowedValues: [a] }", Some("a,b"), "must be one of a, and `b` is not"),
        ("{ Type: List<Number> }", Some("1,x"), "must be a number, and `x` is not"),
    ] {
        let error = parameter(declaration, given).unwrap_err().to_string();
        assert_eq!(error, format!("the template parameter `P` {reason}"), "{declaration}");
    }
}

#[test]
fn a_default_is_held_against_its_constraints_too() {
    assert!(parameter("{ Type: String, Default: c, AllowedValues: [a] }", None).is_err());
}

#[test]
fn a_parameter_that_the_template_does_not_declare_is_refused() {
    let error =
        evaluate_with("Parameters: { A: { Type: String, Default: x } }\nResources: {}", &[("B", "1")]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "the template parameter `B` is not one of this template's (A)"
    );
}

#[test]
fn a_declaration_that_makes_no_sense_is_an_error_of_the_template() {
    for declaration in [
        "{ Default: a }",
        "{ Type: String, AllowedPattern: '(', Default: a }",
        "{ Type: String, AllowedValues: a, Default: a }",
        "{ Type: String, MinLength: x, Default: a }",
    ] {
        let error = parameter(declaration, None).unwrap_err();
        assert!(
            matches!(&error, TemplateError::Property { path, .. } if path == "Parameters.P"),
            "{declaration}"
        );
    }
}

#[test]
fn a_function_has_what_globals_and_itself_say() {
    let template = evaluate(
        r#"
Globals:
  Function:
    Timeout: 10
    MemorySize: 256
    Environment: { Variables: { A: global, B: global } }
Resources:
  Api: { Type: AWS::Serverless::HttpApi }
  OneFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: target/lambda/one/
      Timeout: 20
      Environment: { Variables: { B: own, C: 3 } }
      Events:
        A: { Type: HttpApi, Properties: { ApiId: !Ref Api, Method: get, Path: "/a/{id}" } }
        B: { Type: HttpApi, Properties: { Method: "*", Path: / } }
        C: { Type: HttpApi, Properties: { ApiId: !Ref Api } }
        D: { Type: Schedule, Properties: { Schedule: !ImportValue unknown } }
  TwoFunction:
    Type: AWS::Serverless::Function
    Properties: { CodeUri: ./target/lambda/two }
"#,
    )
    .unwrap();

    let environment = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let path = |method: &str, path: &str| Route::Path { method: method.to_owned(), path: path.to_owned() };
    assert_eq!(
        template.functions,
        [
            Function {
                logical_id: "OneFunction".to_owned(),
                name: "one".to_owned(),
                timeout: Duration::from_secs(20),
                memory_size: 256,
                environment: environment(&[("A", "global"), ("B", "own"), ("C", "3")]),
                routes: vec![path("GET", "/a/{id}"), path("ANY", "/"), Route::Default],
                streams: vec![],
                permissions: vec![],
            },
            Function {
                logical_id: "TwoFunction".to_owned(),
                name: "two".to_owned(),
                timeout: Duration::from_secs(10),
                memory_size: 256,
                environment: environment(&[("A", "global"), ("B", "global")]),
                routes: vec![],
                streams: vec![],
                permissions: vec![],
            },
        ]
    );
}

#[test]
fn a_function_without_settings_has_those_of_lambda() {
    let template =
        evaluate("Resources: { F: { Type: AWS::Serverless::Function, Properties: { CodeUri: a/f } } }")
            .unwrap();
    assert_eq!(template.functions[0].timeout, Duration::from_secs(3));
    assert_eq!(template.functions[0].memory_size, 128);
}

#[test]
fn cors_and_tables_are_read_with_their_intrinsics() {
    let template = evaluate(
        r#"
Parameters: { Origins: { Type: CommaDelimitedList, Default: "https://a,https://b" } }
Resources:
  Api:
    Type: AWS::Serverless::HttpApi
    Properties:
      CorsConfiguration:
        AllowOrigins: !Ref Origins
        AllowMethods: [GET]
        AllowHeaders: [authorization]
        ExposeHeaders: [etag]
        MaxAge: 60
        AllowCredentials: true
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      AttributeDefinitions: [{ AttributeName: pk, AttributeType: S }]
      KeySchema: [{ AttributeName: pk, KeyType: HASH }]
      ProvisionedThroughput: { ReadCapacityUnits: 5, WriteCapacityUnits: 6 }
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true }
      StreamSpecification: { StreamViewType: NEW_IMAGE }
      TimeToLiveSpecification: { AttributeName: ttl, Enabled: true }
"#,
    )
    .unwrap();

    assert_eq!(
        template.cors.unwrap(),
        Cors {
            allow_origins: vec!["https://a".to_owned(), "https://b".to_owned()],
            allow_methods: vec!["GET".to_owned()],
            allow_headers: vec!["authorization".to_owned()],
            expose_headers: vec!["etag".to_owned()],
            max_age: Some(Duration::from_mins(1)),
            allow_credentials: true,
        }
    );
    assert_eq!(
        template.tables,
        [Table {
            name: "Table".to_owned(),
            create_table: json!({
                "TableName": "Table",
                "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
                "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
                "ProvisionedThroughput": { "ReadCapacityUnits": 5, "WriteCapacityUnits": 6 },
                "StreamSpecification": { "StreamEnabled": true, "StreamViewType": "NEW_IMAGE" },
            }),
            time_to_live: Some("ttl".to_owned()),
        }]
    );
}

/// A function with an event of a stream that has `properties` beside the stream.
fn streaming(properties: &str) -> Result<Vec<StreamTrigger>, TemplateError> {
    let text = format!(
        r"
Resources:
  F:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: a/f
      Events:
        Nightly: {{ Type: Schedule, Properties: {{ Schedule: rate(1 day) }} }}
        Stream: {{ Type: DynamoDB, Properties: {{ {properties} }} }}
  Role: {{ Type: AWS::IAM::Role }}
  Letters: {{ Type: AWS::SQS::Queue, Properties: {{ MessageRetentionPeriod: 60 }} }}
  Silent: {{ Type: AWS::DynamoDB::Table, Properties: {{}} }}
  Table:
    Type: AWS::DynamoDB::Table
    Properties: {{ StreamSpecification: {{ StreamViewType: NEW_IMAGE }} }}
"
    );
    Ok(evaluate(&text)?.functions.remove(0).streams)
}

#[test]
fn a_stream_triggers_a_function_as_its_event_says() {
    let minimal = StreamTrigger {
        id: "FStream".to_owned(),
        arn: "arn:aws:dynamodb:us-east-1:000000000000:table/Table/stream/local".to_owned(),
        table: "Table".to_owned(),
        starting_position: StartingPosition::Latest,
        batch_size: 100,
        batching_window: Duration::ZERO,
        maximum_retry_attempts: None,
        bisect: false,
        reports_item_failures: false,
        filters: vec![],
        on_failure: None,
    };
    let stream = "Stream: !GetAtt Table.StreamArn, StartingPosition";
    assert_eq!(streaming(&format!("{stream}: LATEST")).unwrap(), std::slice::from_ref(&minimal));
    assert_eq!(
        streaming(&format!("{stream}: LATEST, MaximumRetryAttempts: -1, Enabled: true")).unwrap(),
        std::slice::from_ref(&minimal)
    );
    assert_eq!(streaming(&format!("{stream}: LATEST, Enabled: false")).unwrap(), []);

    let all = streaming(&format!(
        "{stream}: TRIM_HORIZON, BatchSize: 25, MaximumBatchingWindowInSeconds: 2, MaximumRetryAttempts: 10, \
         BisectBatchOnFunctionError: true, FunctionResponseTypes: [ReportBatchItemFailures], \
         ParallelizationFactor: 1, FilterCriteria: {{ Filters: [{{ Pattern: '{{\"a\":[1]}}' }}] }}, \
         DestinationConfig: {{ OnFailure: {{ Type: SQS, Destination: !GetAtt Letters.Arn }} }}"
    ));
    assert_eq!(
        all.unwrap(),
        [StreamTrigger {
            starting_position: StartingPosition::TrimHorizon,
            batch_size: 25,
            batching_window: Duration::from_secs(2),
            maximum_retry_attempts: Some(10),
            bisect: true,
            reports_item_failures: true,
            filters: vec![crate::stream::Filter::parse(r#"{"a":[1]}"#).unwrap()],
            on_failure: Some("arn:aws:sqs:us-east-1:000000000000:Letters".to_owned()),
            ..minimal
        }]
    );
}

#[test]
fn a_stream_event_that_cannot_be_played_is_refused_with_its_place() {
    let stream = "Stream: !GetAtt Table.StreamArn, StartingPosition: LATEST";
    for (properties, property) in [
        ("StartingPosition: LATEST".to_owned(), "Stream"),
        ("Stream: !GetAtt Table.Arn, StartingPosition: LATEST".to_owned(), "Stream"),
        ("Stream: !GetAtt Silent.StreamArn, StartingPosition: LATEST".to_owned(), "Stream"),
        ("Stream: !GetAtt Table.StreamArn".to_owned(), "StartingPosition"),
        ("Stream: !GetAtt Table.StreamArn, StartingPosition: AT_TIMESTAMP".to_owned(), "StartingPosition"),
        (format!("{stream}, BatchSize: 0"), "BatchSize"),
        (format!("{stream}, MaximumBatchingWindowInSeconds: 301"), "MaximumBatchingWindowInSeconds"),
        (format!("{stream}, MaximumRetryAttempts: -2"), "MaximumRetryAttempts"),
        (format!("{stream}, FunctionResponseTypes: [Other]"), "FunctionResponseTypes"),
        (format!("{stream}, FilterCriteria: {{ Filters: [{{ Pattern: '[]' }}] }}"), "FilterCriteria"),
        (format!("{stream}, FilterCriteria: {{ Filters: [{{}}] }}"), "FilterCriteria"),
        (format!("{stream}, FilterCriteria: {{}}"), "FilterCriteria"),
        (format!("{stream}, DestinationConfig: {{ OnFailure: {{ Type: SQS }} }}"), "DestinationConfig"),
    ] {
        let error = streaming(&properties).unwrap_err();
        let expected = format!("Resources.F.Properties.Events.Stream.Properties.{property}");
        assert!(
            matches!(&error, TemplateError::Property { path, .. } if *path == expected),
            "{properties}\n{error}"
        );
    }
}

/// A function with the policies `policies`.
fn with_policies(policies: &str) -> String {
    format!(
        "Parameters: {{ From: {{ Type: String, Default: a@example.com }} }}\nResources:\n  Table: {{ Type: \
         AWS::DynamoDB::Table, Properties: {{}} }}\n  F:\n    Type: AWS::Serverless::Function\n    Properties: {{ \
         CodeUri: a/f, Policies: {policies} }}\n"
    )
}

#[test]
fn a_function_may_what_its_statements_allow_and_what_cannot_matter_is_left_aside() {
    let permissions = |policies: &str| {
        evaluate(&with_policies(policies)).unwrap_or_else(|error| panic!("{error}")).functions[0]
            .permissions
            .clone()
    };
    let statement = |actions: &[&str], resources: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Statement { actions: owned(actions), resources: owned(resources), from_addresses: None }
    };
    let table = "arn:aws:dynamodb:us-east-1:000000000000:table/Table";

    for policies in [
        "[{ Statement: [{ Effect: Allow, Action: [dynamodb:GetItem], Resource: !GetAtt Table.Arn }] }]",
        "[{ Version: x, Statement: { Effect: Allow, Action: dynamodb:GetItem, Resource: [!GetAtt Table.Arn] } }]",
        "{ Statement: [{ Sid: x, Effect: Allow, Action: dynamodb:GetItem, Resource: !GetAtt Table.Arn }] }",
    ] {
        assert_eq!(permissions(policies), [statement(&["dynamodb:GetItem"], &[table])], "{policies}");
    }
    for (statements, expected) in [
        (
            "{ Effect: Allow, Action: 'DynamoDB:*', Resource: !Sub '${Table.Arn}/index/*' }",
            statement(&["DynamoDB:*"], &[&format!("{table}/index/*")]),
        ),
        ("{ Effect: Allow, Action: '*', Resource: '*' }", statement(&["*"], &["*"])),
        (
            "{ Effect: Allow, Action: [sqs:SendMessage, secretsmanager:GetSecretValue], Resource: '*' }",
            statement(&["sqs:SendMessage", "secretsmanager:GetSecretValue"], &["*"]),
        ),
        (
            "{ Effect: Allow, Action: ses:SendEmail, Resource: '*', Condition: { StringEquals: { ses:FromAddress: \
             !Ref From } } }",
            Statement {
                from_addresses: Some(vec!["a@example.com".to_owned()]),
                ..statement(&["ses:SendEmail"], &["*"])
            },
        ),
    ] {
        assert_eq!(permissions(&format!("[{{ Statement: [{statements}] }}]")), [expected], "{statements}");
    }
    for policies in [
        "[]",
        "AWSLambdaBasicExecutionRole",
        "['arn:aws:iam::aws:policy/AWSXRayDaemonWriteAccess']",
        "[{ SQSSendMessagePolicy: { QueueName: x } }]",
        "[{ Statement: [{ Effect: Deny, Action: sqs:*, Resource: '*', Condition: { Bool: { a: b } } }] }]",
    ] {
        assert_eq!(permissions(policies), [], "{policies}");
    }
    let none = evaluate(&with_policies("[]").replace(", Policies: []", "")).unwrap();
    assert_eq!(none.functions[0].permissions, []);
}

#[test]
fn a_policy_that_could_matter_and_cannot_be_played_is_refused_by_name() {
    let statement = |inner: &str| format!("[{{ Statement: [{{ {inner} }}] }}]");
    let allowed = "Effect: Allow, Action: dynamodb:GetItem, Resource: '*'";
    for (policies, named) in [
        ("AmazonDynamoDBFullAccess".to_owned(), "`AmazonDynamoDBFullAccess`"),
        ("[arn:aws:iam::aws:policy/AdministratorAccess]".to_owned(), "AdministratorAccess`"),
        ("[{ DynamoDBCrudPolicy: { TableName: !Ref Table } }]".to_owned(), "`DynamoDBCrudPolicy`"),
        ("[{ SESCrudPolicy: { IdentityName: x } }]".to_owned(), "`SESCrudPolicy`"),
        ("[{ AWSSecretsManagerGetSecretValuePolicy: { SecretArn: x } }]".to_owned(), "SecretsManager"),
        ("[{}]".to_owned(), "`Statement`"),
        ("[[a]]".to_owned(), "`Statement`"),
        ("[{ Statement: [a] }]".to_owned(), "must be a map"),
        (statement("Effect: Deny, Action: dynamodb:GetItem, Resource: '*'"), "`Effect`"),
        (statement("Action: dynamodb:GetItem, Resource: '*'"), "`Effect`"),
        (statement("Effect: Allow, NotAction: dynamodb:GetItem, Resource: '*'"), "`NotAction`"),
        (statement("Effect: Allow, Action: dynamodb:GetItem, NotResource: '*'"), "`NotResource`"),
        (statement("Effect: Allow, Action: dynamodb:GetItem"), "`Resource`"),
        (statement("Effect: Allow, Action: { a: b }, Resource: '*'"), "`Action`"),
        (
            statement(&format!("{allowed}, Condition: {{ StringLike: {{ ses:FromAddress: a }} }}")),
            "StringEquals",
        ),
        (
            statement(&format!("{allowed}, Condition: {{ StringEquals: {{ dynamodb:LeadingKeys: a }} }}")),
            "StringEquals",
        ),
    ] {
        let error = evaluate(&with_policies(&policies)).unwrap_err();
        let is_named = matches!(&error, TemplateError::Property { path, reason, .. }
            if path == "Resources.F.Properties.Policies" && reason.contains(named));
        assert!(is_named, "{policies}\n{error}");
    }
    for (property, value) in [("Role", "!Ref From"), ("PermissionsBoundary", "x")] {
        let text = with_policies("[]").replace("Policies: []", &format!("{property}: {value}"));
        let error = evaluate(&text).unwrap_err().to_string();
        assert!(error.contains(&format!("Resources.F.Properties.{property}")), "{error}");
    }
}

#[test]
fn what_the_local_stack_cannot_play_is_refused_with_its_place() {
    let function = |properties: &str| {
        format!("Resources:\n  F:\n    Type: AWS::Serverless::Function\n    Properties: {{ {properties} }}\n")
    };
    let event = |properties: &str| {
        function(&format!(
            "CodeUri: a/f, Events: {{ E: {{ Type: HttpApi, Properties: {{ {properties} }} }} }}"
        ))
    };
    for (text, path) in [
        ("A: b".to_owned(), "Resources"),
        ("Resources: { F: {} }".to_owned(), "Resources.F"),
        (function("Timeout: 3"), "Resources.F.Properties.CodeUri"),
        (function("CodeUri: 'a/b c/'"), "Resources.F.Properties.CodeUri"),
        (function("CodeUri: a/f, Timeout: 901"), "Resources.F.Properties.Timeout"),
        (function("CodeUri: a/f, Timeout: soon"), "Resources.F.Properties.Timeout"),
        (function("CodeUri: a/f, MemorySize: 1"), "Resources.F.Properties.MemorySize"),
        (function("CodeUri: a/f, Environment: { Variables: x }"), "Resources.F.Properties.Environment"),
        (event("Path: /a"), "Resources.F.Properties.Events.E"),
        (event("Path: a, Method: GET"), "Resources.F.Properties.Events.E"),
        (event("Path: /a/, Method: GET"), "Resources.F.Properties.Events.E"),
        ("Resources:\n  A: { Type: AWS::Serverless::HttpApi }\n  B: { Type: AWS::Serverless::HttpApi }".to_owned(),
            "Resources.B"),
        ("Resources: { T: { Type: AWS::DynamoDB::Table, Properties: { TableName: t } } }".to_owned(),
            "Resources.T.Properties.TableName"),
        ("Resources: { A: { Type: AWS::Serverless::HttpApi, Properties: { CorsConfiguration: { Allow: x } } } }"
            .to_owned(), "Resources.A.Properties.CorsConfiguration"),
        (function("CodeUri: a/f") + "  G: { Type: AWS::Serverless::Function, Properties: { CodeUri: b/f } }\n",
            "Resources.G"),
        (event("Path: /a, Method: GET")
            + "  G:\n    Type: AWS::Serverless::Function\n    Properties: { CodeUri: a/g, Events: { E: { Type: HttpApi, \
               Properties: { Path: /a, Method: get } } } }\n", "Resources.G"),
    ] {
        let error = evaluate(&text).unwrap_err();
        assert!(matches!(&error, TemplateError::Property { path: found, .. } if found == path), "{text}\n{error}");
    }
}

#[test]
fn an_error_names_the_line() {
    for (text, line) in [
        ("a: b\nc: @d", 2),
        ("a: b\n\nc: &x 1\nd: *x\n", 4),
        ("a: 1\nb: 2\na: 3", 3),
        ("a: 1\n? [b]\n: 2", 2),
        ("a: 1\n---\nb: 2", 2),
        ("", 1),
    ] {
        let error = Source::parse(text).unwrap_err();
        assert!(
            matches!(&error, TemplateError::Yaml { line: found, .. } if *found == line),
            "{text:?}: {error}"
        );
    }
    let error = evaluate(
        "Resources:\n  F:\n    Type: AWS::Serverless::Function\n    Properties:\n      CodeUri: ''\n",
    );
    assert!(matches!(error.unwrap_err(), TemplateError::Property { line: 5, .. }));
}

#[test]
fn nesting_without_end_is_refused() {
    for text in ["[".repeat(100_000), "a: ".to_owned() + &"!Not [".repeat(1000), "- ".repeat(5000)] {
        assert!(matches!(Source::parse(&text), Err(TemplateError::Yaml { .. })));
    }
}

/// The project's own template.
const REAL: &str = include_str!("../../../template.yaml");

/// Its parameters that have no default.
const NEEDED: [(&str, &str); 4] = [
    ("OidcIssuer", "https://id.example"),
    ("OidcAudience", "a"),
    ("OidcClientId", "c"),
    ("MailFrom", "a@example.com"),
];

fn real() -> Template {
    evaluate_with(REAL, &NEEDED).unwrap()
}

#[test]
fn every_function_of_the_projects_template_is_found() {
    let template = real();
    assert_eq!(template.functions.len(), REAL.matches("Type: AWS::Serverless::Function").count());
    let routes: Vec<_> = template.functions.iter().flat_map(|function| &function.routes).collect();
    assert_eq!(routes.len(), REAL.matches("Type: HttpApi").count());
    let streams = template.functions.iter().map(|function| function.streams.len());
    assert_eq!(streams.sum::<usize>(), REAL.matches("Type: DynamoDB").count());
    assert!(template.functions.iter().all(|function| function.environment["TABLE_NAME"] == "Table"));
    assert!(template.cors.is_some());
    assert_eq!(template.tables.len(), 1);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = evaluate(&text);
    }

    #[test]
    fn no_change_to_the_projects_template_makes_it_panic(
        at in 0..REAL.len(), remove in 0..40_usize, insert in "[\\[\\]{}:,!&*|>'\"#%@`?\\- \n\ta-z0-9]{0,6}",
    ) {
        let mut bytes = REAL.as_bytes().to_vec();
        bytes.splice(at..(at + remove).min(REAL.len()), insert.bytes());
        let _ = evaluate_with(&String::from_utf8_lossy(&bytes), &NEEDED);
    }

    #[test]
    fn no_value_of_an_intrinsic_function_makes_it_panic(value in "(!|Fn::|\\[|\\]|\\{|\\}|Ref|Sub|Join|Select|If|Split|, |: |\\$\\{|Stage|Origins|'|0|9){0,20}") {
        let _ = value_of(&value);
    }
}
