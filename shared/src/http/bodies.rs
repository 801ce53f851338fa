//! What requests carry, for the routes to read and for the description of the API.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Map, Value, json};

use crate::domain::{
    AppUrl, BucketName, Comment, Configuration, Email, Feedback, GrantableRole, NotificationState, PlanName,
    ServerName, UserOptions,
};

/// The body of `create`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Create {
    /// 1 to 100 characters, not blank.
    pub name: BucketName,
    /// Up to 1,000 characters.
    pub comment: Option<Comment>,
    /// An http or https URL.
    pub app_url: Option<AppUrl>,
}

/// The body of `update`; what is absent or `null` stays as it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("anyOf" = any_field_given()))]
pub struct Update {
    /// 1 to 100 characters, not blank.
    pub name: Option<BucketName>,
    /// Up to 1,000 characters; empty clears it.
    pub comment: Option<Comment>,
    /// An http or https URL; empty clears it.
    pub app_url: Option<AppUrl>,
    /// A text or an object of up to 16 KiB, kept as it came.
    pub configuration: Option<Configuration>,
}

/// JSON Schema's way to say that one field at least is there and not `null`.
fn any_field_given() -> Value {
    ["name", "comment", "app_url", "configuration"]
        .map(|field| json!({ "required": [field], "properties": { field: { "not": { "type": "null" } } } }))
        .into()
}

/// The body of `invite_user`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct InviteUser {
    /// Whom to invite.
    pub email: Email,
    /// As what: `user`, `developer` or `admin`; `user` if absent.
    pub role: Option<GrantableRole>,
}

/// The body of `remove_invitation`, of clients from before the query had the address.
#[derive(Debug, Deserialize)]
pub struct RemoveInvitation {
    /// What those clients meant for the query.
    pub params: RemoveInvitationParams,
}

/// See [`RemoveInvitation`].
#[derive(Debug, Deserialize)]
pub struct RemoveInvitationParams {
    /// Whose invitation.
    pub email: String,
}

/// The body of `remove_user`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RemoveUser {
    /// Whom to remove.
    pub email: Email,
}

/// The body of `set_user_role`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SetUserRole {
    /// Whose role.
    pub email: Email,
    /// `user`, `developer` or `admin`.
    pub role: GrantableRole,
}

/// The body of `transfer_ownership`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct TransferOwnership {
    /// The member to hand the bucket to.
    pub new_owner: Email,
}

/// The body of `set_notification_state`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SetNotificationState {
    /// Whose state.
    pub email: Email,
    /// `email` or `none`; `nonde`, as the published reference has it, is `none`.
    #[schemars(schema_with = "notification_state")]
    pub state: NotificationState,
}

fn notification_state(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["email", "none", "nonde"] })
}

/// The body of `update_user_options`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct UpdateUserOptions {
    /// What only clients understand; kept as it came.
    pub options: UserOptions,
}

/// The body of `send_feedback`, and its answer.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct SendFeedback {
    /// 1 to 10,000 characters, not blank.
    pub feedback: Feedback,
}

/// The body of `server_delete_server`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DeleteServer {
    /// The name of the server.
    pub server_name: ServerName,
}

/// The body of `upgrade`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Upgrade {
    /// The plan to put the bucket on.
    pub plan: PlanName,
    /// A card to pay with from now on, as a token made by Stripe.
    pub stripe_token: Option<String>,
    /// The id of a coupon at Stripe.
    pub coupon_id: Option<String>,
}

/// The body of `oauth_token`.
#[derive(Deserialize, JsonSchema)]
pub struct TokenRequest {
    /// `refresh_token`.
    #[schemars(extend("const" = "refresh_token"))]
    pub grant_type: String,
    /// The token to exchange.
    #[schemars(length(min = 1))]
    pub refresh_token: String,
    /// Ignored: the tokens are exchanged in the name of the deployment's own client.
    #[schemars(with = "Option<serde_json::Value>")]
    pub client_id: Option<IgnoredAny>,
}

/// Tokens stay out of logs.
impl std::fmt::Debug for TokenRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TokenRequest").field("grant_type", &self.grant_type).finish_non_exhaustive()
    }
}

/// The body of `node_verify`.
#[derive(Deserialize, JsonSchema)]
#[schemars(transform = with_data)]
pub struct VerifyPm2 {
    /// The public half of the bucket's keys.
    pub public_id: String,
    /// The secret half of the bucket's keys. Agents of pm2 before version 3 send none, and `data` encrypted.
    pub private_id: Option<String>,
    /// What the agent says of its server, by which `MACHINE_NAME` it is one server.
    #[serde(default)]
    #[schemars(schema_with = "agent_report")]
    pub data: Map<String, Value>,
}

/// Without a server's name in them, data are refused as bad input, and so are none.
fn with_data(schema: &mut Schema) {
    schema.insert("required".to_owned(), json!(["public_id", "data"]));
    if let Some(data) = schema.pointer_mut("/properties/data").and_then(Value::as_object_mut) {
        data.remove("default");
    }
}

/// Secrets stay out of logs.
impl std::fmt::Debug for VerifyPm2 {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("VerifyPm2").field("public_id", &self.public_id).finish_non_exhaustive()
    }
}

/// What is read of an agent's report: see [`Report::of_agent`](crate::domain::Report::of_agent).
fn agent_report(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["MACHINE_NAME"],
        "properties": {
            "MACHINE_NAME": generator.subschema_for::<ServerName>(),
            "HOSTNAME": { "type": "string" },
            "PM2_VERSION": { "type": "string" },
            "CPUS": { "description": "A list with an entry for each processor, or how many there are." },
            "MEMORY": { "description": "In MB, or in bytes.", "type": "number" },
        },
    })
}
