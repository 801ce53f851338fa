//! What a function may do with the other services is what its policies in the template say.

use std::collections::BTreeSet;

use super::*;

const POLICIES: &str = r#"
      Policies:
        - Statement:
            - Effect: Allow
              Action: [dynamodb:GetItem, dynamodb:PutItem]
              Resource: !GetAtt Table.Arn
            - Effect: Allow
              Action: secretsmanager:GetSecretValue
              Resource: !Sub "arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}:secret:own-??????"
            - Effect: Allow
              Action: ses:SendEmail
              Resource: "*"
              Condition: { StringEquals: { ses:FromAddress: own@example.com } }
      Events:
        One:"#;

/// A stack whose function has [`POLICIES`], and the function's environment.
async fn start() -> (Local, Value) {
    let local = Local::start_with(|options| {
        let template = TEMPLATE.replace("\n      Events:\n        One:", POLICIES);
        assert!(template.contains("Policies"));
        std::fs::write(&options.template, template).unwrap();
        options.secrets = ["own", "other"].map(|name| (name.to_owned(), "value".to_owned())).into();
    })
    .await;
    let answer = local.stack.invoke("misbehaving", br#"{"do":"context"}"#.to_vec()).await.unwrap();
    let mut answer: Value = serde_json::from_slice(&answer).unwrap();
    let environment = answer.get_mut("environment").unwrap().take();
    (local, environment)
}

#[tokio::test]
async fn the_database_refuses_a_function_what_its_policies_do_not_allow_and_does_none_of_it() {
    let (local, environment) = start().await;
    let (endpoint, key) =
        (local.stack.dynamodb_endpoint(), environment["AWS_ACCESS_KEY_ID"].as_str().unwrap());
    let item = |key: &str| json!({ "TableName": "Table", "Item": { "pk": { "S": key } } });
    let as_function = async |operation: &str, body: &Value| {
        call(endpoint, key, &format!("DynamoDB_20120810.{operation}"), body).await
    };

    assert_eq!(as_function("PutItem", &item("a")).await, (StatusCode::OK, json!({})));
    let get = json!({ "TableName": "Table", "Key": { "pk": { "S": "a" } } });
    assert_eq!(as_function("GetItem", &get).await.1["Item"]["pk"]["S"], "a");

    let (status, answer) = as_function("DeleteItem", &get).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer,
        json!({
            "__type": "com.amazon.coral.service#AccessDeniedException",
            "Message": "User: arn:aws:sts::000000000000:assumed-role/MisbehavingFunctionRole/MisbehavingFunction is \
                        not authorized to perform: dynamodb:DeleteItem on resource: \
                        arn:aws:dynamodb:us-east-1:000000000000:table/Table because no identity-based policy \
                        allows the dynamodb:DeleteItem action",
        })
    );
    let check = json!({ "ConditionCheck": { "TableName": "Table", "Key": { "pk": { "S": "a" } },
                                            "ConditionExpression": "attribute_exists(pk)" } });
    let transaction = json!({ "TransactItems": [{ "Put": item("b") }, check] });
    let (status, answer) = as_function("TransactWriteItems", &transaction).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        answer["Message"].as_str().unwrap().contains("perform: dynamodb:ConditionCheckItem on"),
        "{answer}"
    );
    let (status, _) = as_function("PutItem", &json!({ "TableName": "Other", "Item": {} })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (_, answer) = as_function("PutItem", &json!({ "TableName": 1 })).await;
    assert_eq!(answer, json!({ "__type": "com.amazon.coral.service#SerializationException" }));

    // Nobody else is held to them, and nothing of what was refused has happened.
    let (_, answer) = dynamodb(&local, "Scan", &json!({ "TableName": "Table" })).await;
    assert_eq!(answer["Items"], json!([{ "pk": { "S": "a" } }]));
    assert_eq!(dynamodb(&local, "DeleteItem", &get).await.0, StatusCode::OK);
    let used = ["ConditionCheckItem", "DeleteItem", "GetItem", "PutItem"];
    assert_eq!(
        local.stack.actions_used("misbehaving"),
        used.map(|action| format!("dynamodb:{action}")).into_iter().collect::<BTreeSet<_>>()
    );
}

#[tokio::test]
async fn so_do_secrets_manager_and_ses() {
    let (local, environment) = start().await;
    let text = |name: &str| environment[name].as_str().unwrap().to_owned();
    let key = text("AWS_ACCESS_KEY_ID");
    let secrets = text("AWS_ENDPOINT_URL_SECRETS_MANAGER") + "/";
    let target = "secretsmanager.GetSecretValue";

    let (status, answer) = call(&secrets, &key, target, &json!({ "SecretId": "own" })).await;
    assert_eq!((status, &answer["SecretString"]), (StatusCode::OK, &json!("value")));
    let (status, answer) = call(&secrets, &key, target, &json!({ "SecretId": "other" })).await;
    assert_eq!((status, &answer["__type"]), (StatusCode::BAD_REQUEST, &json!("AccessDeniedException")));
    assert!(answer["Message"].as_str().unwrap().contains("secret:other-AbCdEf because no identity-based"));
    assert_eq!(call(&secrets, "key", target, &json!({ "SecretId": "other" })).await.0, StatusCode::OK);

    let mails = text("AWS_ENDPOINT_URL_SESV2") + "/v2/email/outbound-emails";
    let mail = |from: &str| {
        json!({ "FromEmailAddress": from, "Destination": { "ToAddresses": ["you@example.com"] },
                "Content": { "Simple": { "Subject": { "Data": "Hello" }, "Body": {} } } })
    };
    for from in ["own@example.com", "Own <own@example.com>"] {
        assert_eq!(call(&mails, &key, "", &mail(from)).await.0, StatusCode::OK, "{from}");
    }
    let (status, answer) = call(&mails, &key, "", &mail("other@example.com")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(answer["message"].as_str().unwrap().contains("is not authorized to perform: ses:SendEmail on"));
    assert_eq!(body(&local.get("/_local/mail.json").await).as_array().unwrap().len(), 2);
    assert_eq!(
        local.stack.actions_used("misbehaving"),
        BTreeSet::from(["secretsmanager:GetSecretValue".to_owned(), "ses:SendEmail".to_owned()])
    );
}
