//! The API under test and the people who use it.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::{
    Client,
    config::{Credentials, SharedCredentialsProvider},
    types::{AttributeValue, PutRequest, WriteRequest},
};
use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use local::{Data, Options, Stack};
use serde_json::{Value, json};
use shared::{domain::Plans, store::Store};

use super::{lines::Lines, sam_local};

/// When the next token was issued: each later than the one before.
static ISSUED_AT: AtomicU32 = AtomicU32::new(1_795_507_200);

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The whole API on a free port, with an empty table, gone with the value.
pub(crate) struct Api {
    pub(crate) stack: Stack,
    /// Where the routes are.
    pub(crate) origin: String,
    lines: Lines,
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::with_parameters(&[]).await
    }

    /// As deployed with these template parameters.
    pub(crate) async fn with_parameters(parameters: &[(&str, &str)]) -> Self {
        Self::deployed(parameters, BTreeMap::new()).await
    }

    /// As deployed with these template parameters, and these secrets in Secrets Manager.
    pub(crate) async fn deployed(parameters: &[(&str, &str)], secrets: BTreeMap<String, String>) -> Self {
        Self::start_with(parameters, secrets, None).await
    }

    /// As deployed with these template parameters, its functions reaching the table through what stands at
    /// `endpoint`.
    pub(crate) async fn behind(endpoint: String, parameters: &[(&str, &str)]) -> Self {
        Self::start_with(parameters, BTreeMap::new(), Some(endpoint)).await
    }

    async fn start_with(
        parameters: &[(&str, &str)],
        secrets: BTreeMap<String, String>,
        functions_dynamodb: Option<String>,
    ) -> Self {
        let lines = Lines::new();
        for secret in secrets.values() {
            Lines::must_not_hold(&serde_json::from_str(secret).unwrap_or_default());
        }
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let options = Options {
            template: workspace().join("template.yaml"),
            binaries: Path::new(env!("CARGO_BIN_EXE_create")).parent().unwrap().to_owned(),
            data: Data::Memory,
            address: (sam_local::address(), 0).into(),
            dynamodb_port: 0,
            parameters: parameters.iter().map(own).collect::<BTreeMap<_, _>>(),
            secrets,
            logs: lines.sink(),
            functions_dynamodb,
        };
        let stack = match sam_local::origin() {
            Some(origin) => sam_local::stack(options, &origin).await,
            None => Stack::start(options).await.unwrap(),
        };
        let origin = sam_local::origin().unwrap_or_else(|| stack.origin().to_owned());
        Self { stack, origin, lines }
    }

    /// A person who has signed in as the published clients do. `address` may carry the marks of the
    /// embedded provider's refresh tokens, such as `#unverified`.
    pub(crate) async fn user(&self, address: &str) -> Person<'_> {
        let body =
            json!({ "client_id": "0943857435", "refresh_token": address, "grant_type": "refresh_token" });
        let answer = self.send("POST", "/api/oauth/token", None, Some(&body.to_string())).await;
        self.bearer(answer.ok()["access_token"].as_str().unwrap())
    }

    /// A person with a token of these claims beside the needed ones.
    pub(crate) fn user_with_claims(&self, claims: &Value) -> Person<'_> {
        let identity = self.stack.identity();
        let mut all = json!({
            "iss": identity.issuer(), "aud": identity.audience(), "exp": 4_102_444_800_u32,
            "iat": ISSUED_AT.fetch_add(1, Ordering::Relaxed),
        });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        self.bearer(&identity.sign(&all).unwrap())
    }

    /// Whoever carries `token`.
    pub(crate) fn bearer(&self, token: &str) -> Person<'_> {
        Person { api: self, token: token.to_owned() }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&str>,
    ) -> Answer {
        let mut headers = vec![];
        let authorization = token.map(|token| format!("Bearer {token}"));
        if let Some(authorization) = &authorization {
            headers.push(("authorization", authorization.as_str()));
        }
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        self.send_with(method, path, &headers, body.unwrap_or_default()).await
    }

    pub(crate) async fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.origin));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer: Answer =
            local::client::send(request.body(body.as_ref().to_vec()).unwrap()).await.unwrap().into();
        Lines::must_not_hold(&answer.body);
        answer
    }

    pub(crate) fn aws(&self) -> SdkConfig {
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(self.stack.dynamodb_endpoint())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "key", "secret", None, None, "test",
            )))
            .build()
    }

    fn database(&self) -> Client {
        Client::new(&self.aws())
    }

    /// The table, to change it behind everybody's back.
    pub(crate) fn table(&self) -> Table {
        Table { client: self.database(), name: self.stack.table_name().to_owned() }
    }

    /// The store over the API's table, for changes that rest on what is no longer so.
    pub(crate) fn store(&self) -> Store {
        self.store_by(&self.aws())
    }

    /// The store over the API's table, reached as `aws` says.
    pub(crate) fn store_by(&self, aws: &SdkConfig) -> Store {
        Store::new(aws, self.stack.table_name(), &Plans::built_in().unwrap())
    }

    /// Every row of the table, ordered by key; without the marks of mails, which come behind a change.
    pub(crate) async fn rows(&self) -> Vec<Value> {
        let answer = self.database().scan().table_name(self.stack.table_name()).send().await.unwrap();
        let mut rows = read(answer.items.unwrap());
        rows.sort_by_key(|row| (row["pk"].to_string(), row["sk"].to_string()));
        rows
    }

    /// The rows of one type.
    pub(crate) async fn rows_of(&self, kind: &str) -> Vec<Value> {
        self.rows().await.into_iter().filter(|row| row["type"] == kind).collect()
    }

    /// Puts a row as it is, for what no route makes yet.
    pub(crate) async fn put_row(&self, row: &Value) {
        self.table().put(row).await;
    }

    /// The lines that the functions have logged.
    pub(crate) fn logs(&self) -> Vec<String> {
        self.lines.all()
    }
}

/// Rows as JSON; without the marks of mails, which come behind a change.
fn read(items: Vec<HashMap<String, AttributeValue>>) -> Vec<Value> {
    let mut rows: Vec<Value> = serde_dynamo::from_items(items).unwrap();
    for row in rows.iter_mut().filter_map(Value::as_object_mut) {
        row.retain(|name, _| !matches!(name.as_str(), "mail_lease" | "mailed_at"));
    }
    rows
}

/// The table itself.
#[derive(Clone)]
pub(crate) struct Table {
    client: Client,
    name: String,
}

impl Table {
    /// The rows under `pk`, in their order, without the marks of mails.
    pub(crate) async fn under(&self, pk: &str) -> Vec<Value> {
        let query = self.client.query().table_name(&self.name).key_condition_expression("pk = :pk");
        let query = query.expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()));
        read(query.consistent_read(true).send().await.unwrap().items.unwrap())
    }

    /// Puts a row as it is.
    pub(crate) async fn put(&self, row: &Value) {
        self.client.put_item().table_name(&self.name).set_item(Some(item(row))).send().await.unwrap();
    }

    /// Puts rows as they are, many at a time.
    pub(crate) async fn put_all(&self, rows: &[Value]) {
        for rows in rows.chunks(25) {
            let puts = rows.iter().map(|row| {
                let put = PutRequest::builder().set_item(Some(item(row))).build().unwrap();
                WriteRequest::builder().put_request(put).build()
            });
            let batch = self.client.batch_write_item().request_items(&self.name, puts.collect());
            Lines::must_not_hold(&Value::from(rows));
            assert!(batch.send().await.unwrap().unprocessed_items.is_none_or(|left| left.is_empty()));
        }
    }

    /// Sets a number of a row, of which JSON cannot hold everything.
    pub(crate) async fn set(&self, row: &Value, name: &str, value: i64) {
        let key = json!({ "pk": row["pk"], "sk": row["sk"] });
        let key: HashMap<String, AttributeValue> = serde_dynamo::to_item(key).unwrap();
        self.client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(key))
            .update_expression("SET #name = :value")
            .expression_attribute_names("#name", name)
            .expression_attribute_values(":value", AttributeValue::N(value.to_string()))
            .send()
            .await
            .unwrap();
    }

    /// Deletes a row.
    pub(crate) async fn delete(&self, row: &Value) {
        let key = json!({ "pk": row["pk"], "sk": row["sk"] });
        let key: HashMap<String, AttributeValue> = serde_dynamo::to_item(key).unwrap();
        self.client.delete_item().table_name(&self.name).set_key(Some(key)).send().await.unwrap();
    }
}

/// A row as the table has it.
fn item(row: &Value) -> HashMap<String, AttributeValue> {
    let mut item: HashMap<String, AttributeValue> = serde_dynamo::to_item(row).unwrap();
    for name in ["connections", "tried"] {
        // Sets, which JSON does not have.
        if let Some(AttributeValue::L(texts)) = item.get(name) {
            let texts = texts.iter().map(|text| text.as_s().unwrap().clone()).collect();
            item.insert(name.to_owned(), AttributeValue::Ss(texts));
        }
    }
    item
}

/// Somebody with an access token.
pub(crate) struct Person<'a> {
    api: &'a Api,
    pub(crate) token: String,
}

impl Person<'_> {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.api.send("GET", path, Some(&self.token), None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.api.send("DELETE", path, Some(&self.token), Some("{}")).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.api.send("PUT", path, Some(&self.token), Some(&body.to_string())).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.api.send("POST", path, Some(&self.token), Some(&body.to_string())).await
    }

    /// Creates a bucket and gives it as the answer shows it.
    pub(crate) async fn creates_bucket(&self, name: &str) -> Value {
        self.post("/api/bucket/create_classic", &json!({ "name": name })).await.ok()["bucket"].take()
    }

    /// Who the person is, as they see themselves.
    pub(crate) async fn self_view(&self) -> Value {
        self.get("/api/users/isLogged").await.ok()
    }

    /// The person's address.
    pub(crate) async fn email(&self) -> String {
        self.self_view().await["email"].as_str().unwrap().to_owned()
    }

    /// Invites `email` into `bucket` as `role`.
    pub(crate) async fn invites(&self, bucket: &Value, email: &str, role: &str) -> Answer {
        self.post(&path(bucket, "/add_user"), &json!({ "email": email, "role": role })).await
    }

    /// Makes `person`, who signs in first, a member of `bucket` with `role`.
    pub(crate) async fn adds(&self, bucket: &Value, person: &Person<'_>, role: &str) {
        self.invites(bucket, &person.email().await, role).await.ok();
    }

    /// Sets the role of `email` in `bucket`.
    pub(crate) async fn sets_role(&self, bucket: &Value, email: &str, role: &str) -> Answer {
        self.post(&path(bucket, "/promote_user"), &json!({ "email": email, "role": role })).await
    }

    /// Removes `email` from `bucket`.
    pub(crate) async fn removes(&self, bucket: &Value, email: &str) -> Answer {
        self.post(&path(bucket, "/remove_user"), &json!({ "email": email })).await
    }

    /// Hands `bucket` over to `email`.
    pub(crate) async fn transfers(&self, bucket: &Value, email: &str) -> Answer {
        self.post(&path(bucket, "/transfer_ownership"), &json!({ "new_owner": email })).await
    }

    /// Address and role of each member of `bucket`, in their order.
    pub(crate) async fn members(&self, bucket: &Value) -> Vec<(String, String)> {
        members_in(&self.get(&path(bucket, "/users_authorized")).await.ok())
    }

    /// The names of the person's buckets.
    pub(crate) async fn bucket_names(&self) -> Vec<String> {
        let buckets = self.get("/api/bucket").await.ok();
        buckets.as_array().unwrap().iter().map(|bucket| bucket["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// Address and role of each member that an answer lists.
pub(crate) fn members_in(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    answer.as_array().unwrap().iter().map(|member| (text(&member["email"]), text(&member["role"]))).collect()
}

/// The path of `bucket`, and what follows.
pub(crate) fn path(bucket: &Value, rest: &str) -> String {
    format!("/api/bucket/{}{rest}", bucket["_id"].as_str().unwrap())
}

/// An answer, its body read as JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl From<Response<Bytes>> for Answer {
    fn from(response: Response<Bytes>) -> Self {
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.to_vec()).unwrap();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }
}

impl Answer {
    /// The body of a 200.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// Asserts a refusal in its whole form, and gives its detail.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) -> String {
        assert_eq!((self.status, &self.body["code"]), (status, &json!(code)), "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.headers["cache-control"], "no-store");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("urn:bucket-api:problem:{code}"));
        assert_eq!(self.body["msg"], self.body["detail"]);
        assert!(self.body["request_id"].as_str().is_some_and(|id| !id.is_empty()));
        assert_eq!(self.headers.contains_key("www-authenticate"), status == 401);
        assert_eq!(self.headers.contains_key("retry-after"), matches!(status, 429 | 503));
        self.body["detail"].as_str().unwrap().to_owned()
    }

    /// Asserts that the fields `names` are said to be bad.
    #[track_caller]
    pub(crate) fn blames(&self, names: &[&str]) {
        self.is_problem(400, "invalid_input");
        assert_eq!(self.body["fields"], json!(names), "{}", self.body);
    }
}
