//! What the front does between Stripe's present API and localstripe, route by route.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
};

use axum::http::Request;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use url::form_urlencoded;

use super::forms::{self, Beyond, Refusal};

/// The fields of a request, by name as sent: `items[0][price]`.
pub(super) type Fields = BTreeMap<String, String>;

/// Fields that the rig lays over objects, by their id.
pub(super) type Shown = Arc<Mutex<HashMap<String, Map<String, Value>>>>;

/// Stripe's own tokens for tests, which last, and the cards that they are of.
const LASTING_TOKENS: [(&str, &str); 3] = [
    ("tok_visa", super::GOOD_CARD),
    ("tok_chargeDeclined", super::DECLINED_CARD),
    ("tok_chargeCustomerFail", super::CHARGE_FAILS_CARD),
];

/// Parameters of subscriptions that localstripe does not know and that change nothing here.
const WITHOUT_EFFECT: [&str; 8] = [
    "automatic_tax[enabled]",
    "cancellation_details[comment]",
    "cancellation_details[feedback]",
    "description",
    "invoice_now",
    "off_session",
    "payment_settings[save_default_payment_method]",
    "prorate",
];

/// More than a test makes of anything.
const ALL: &str = "1000000";

pub(super) fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// Sends a request, and reads the answer as JSON.
pub(super) async fn send(request: Request<String>) -> Result<(u16, Value), local::client::ClientError> {
    let answer = local::client::send(request).await?;
    Ok((answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default()))
}

/// The parameters that a route has not looked at yet.
struct Parameters(Fields);

impl Parameters {
    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Takes the fields below `name`, such as `metadata[..]`, whole names and all.
    fn take_below(&mut self, name: &str) -> Fields {
        let start = format!("{name}[");
        let (below, left) =
            std::mem::take(&mut self.0).into_iter().partition(|(field, _)| field.starts_with(&start));
        self.0 = left;
        below
    }

    /// Takes the values of a list: `expand[0]`, `expand[1]` or `expand[]`.
    fn take_list(&mut self, name: &str) -> Vec<String> {
        self.take_below(name).into_values().collect()
    }

    fn is_true(&mut self, name: &str) -> bool {
        self.take(name).as_deref() == Some("true")
    }
}

/// What the rig plays, over one localstripe.
#[derive(Debug)]
pub(super) struct Played {
    origin: String,
    shown: Shown,
    /// What somebody asked for and is not played: a test must not pass by it.
    pub(super) complaints: Vec<String>,
    subscriptions: HashMap<String, Beyond>,
    /// Subscriptions that Stripe would not have made.
    never_were: HashSet<String>,
    deleted_customers: HashSet<String>,
    used_tokens: HashSet<String>,
    /// Why each invoice was made.
    reasons: HashMap<String, &'static str>,
}

impl Played {
    pub(super) fn over(origin: &str, shown: Shown) -> Self {
        Self {
            origin: origin.to_owned(),
            shown,
            complaints: vec![],
            subscriptions: HashMap::new(),
            never_were: HashSet::new(),
            deleted_customers: HashSet::new(),
            used_tokens: HashSet::new(),
            reasons: HashMap::new(),
        }
    }

    /// Answers a request as Stripe does.
    pub(super) async fn answer(
        &mut self,
        method: &str,
        path: &str,
        fields: &Fields,
    ) -> Result<Value, Refusal> {
        let segments: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        let mut left = Parameters(fields.clone());
        let expand = left.take_list("expand");
        let mut answer = match (method, segments.as_slice()) {
            ("GET", ["prices"]) => self.prices(&mut left).await,
            ("GET", ["prices", id]) => self.price(id).await,
            ("POST", ["customers"]) => self.create_customer(&mut left).await,
            ("GET", ["customers", id]) => self.customer(id).await,
            ("POST", ["customers", id]) => self.update_customer(id, &mut left).await,
            ("DELETE", ["customers", id]) => self.delete_customer(id).await,
            ("POST", ["subscriptions"]) => self.create_subscription(&mut left).await,
            ("GET", ["subscriptions"]) => self.subscriptions(&mut left).await,
            ("GET", ["subscriptions", id]) => self.subscription(id).await,
            ("POST", ["subscriptions", id]) => self.update_subscription(id, &mut left).await,
            ("DELETE", ["subscriptions", id]) => self.cancel(id, &mut left).await,
            ("GET", ["invoices"]) => self.invoices(&mut left).await,
            ("GET", ["invoices", id]) => self.invoice(id).await,
            _ => {
                let mut raw = self.call(method, path, fields).await?;
                for object in raw["data"].as_array_mut().into_iter().flatten() {
                    *object = self.in_form(object);
                }
                return Ok(self.in_form(&raw));
            }
        }?;
        for (name, value) in &left.0 {
            let harmless = WITHOUT_EFFECT.contains(&name.as_str()) || value == "charge_automatically";
            if !harmless {
                self.complaints.push(format!("{method} {path}: the rig does not play `{name}={value}`"));
            }
        }
        for field in expand {
            self.expand(&mut answer, &field).await?;
        }
        Ok(answer)
    }

    /// Has localstripe do something, and gives what it shows of it.
    pub(super) async fn call(&mut self, method: &str, path: &str, fields: &Fields) -> Result<Value, Refusal> {
        let encoded = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let (query, body) =
            if method == "GET" { (format!("?{encoded}"), String::new()) } else { (String::new(), encoded) };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}{query}", self.origin))
            .header("authorization", "Bearer sk_test_localstripe")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let sent = send(request.unwrap()).await;
        let (status, body) = sent.unwrap_or_else(|error| panic!("localstripe is gone: {error}"));
        if status < 400 {
            return Ok(body);
        }
        if status >= 500 || body.is_null() {
            self.complaints.push(format!("{method} {path}: localstripe fails with {status} {body}"));
        }
        Err(Refusal::of_localstripe(status, &body, path))
    }

    async fn get(&mut self, path: &str) -> Result<Value, Refusal> {
        self.call("GET", path, &Fields::new()).await
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<Value, Refusal> {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.call("POST", path, &fields).await
    }

    /// Everything that localstripe lists there, in the order in which it was made.
    async fn all(&mut self, path: &str, filter: &[(&str, &str)]) -> Result<Vec<Value>, Refusal> {
        let mut fields: Fields =
            filter.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        fields.insert("limit".to_owned(), ALL.to_owned());
        let mut list = self.call("GET", path, &fields).await?;
        Ok(std::mem::take(list["data"].as_array_mut().unwrap()))
    }

    /// An object with what a test lays over it.
    fn with_shown(&self, mut object: Value) -> Value {
        if let Some(shown) = object["id"].as_str().and_then(|id| self.shown.lock().unwrap().get(id).cloned())
        {
            object.as_object_mut().unwrap().extend(shown);
        }
        object
    }

    /// An object of localstripe's in Stripe's form, as far as its kind is played.
    pub(super) fn in_form(&self, raw: &Value) -> Value {
        let id = raw["id"].as_str().unwrap_or_default();
        let object = match raw["object"].as_str() {
            Some("customer") => forms::customer(raw),
            Some("subscription") => {
                forms::subscription(raw, self.subscriptions.get(id).unwrap_or(&Beyond::default()))
            }
            Some("invoice") => forms::invoice(raw, self.reasons.get(id).copied()),
            _ => raw.clone(),
        };
        self.with_shown(object)
    }

    fn price_of(&self, plan: &Value) -> Value {
        self.with_shown(forms::price(plan))
    }

    /// Whether an object is of a subscription that Stripe would not have made.
    pub(super) fn never_was(&self, raw: &Value) -> bool {
        [&raw["id"], &raw["subscription"]]
            .into_iter()
            .filter_map(Value::as_str)
            .any(|id| self.never_were.contains(id))
    }

    /// Puts the object in place of an id: `latest_invoice`, or `data.latest_invoice` in a list.
    async fn expand(&mut self, answer: &mut Value, field: &str) -> Result<(), Refusal> {
        let (objects, name): (Vec<&mut Value>, &str) = match field.strip_prefix("data.") {
            Some(name) => (answer["data"].as_array_mut().into_iter().flatten().collect(), name),
            None => (vec![answer], field),
        };
        for object in objects {
            match (name, object[name].as_str().map(str::to_owned)) {
                ("latest_invoice", Some(id)) => object[name] = self.invoice(&id).await?,
                ("customer", Some(id)) => object[name] = self.customer(&id).await?,
                ("discounts", _) => {
                    let beyond = object["id"].as_str().and_then(|id| self.subscriptions.get(id));
                    object[name] = json!(beyond.map(|beyond| &beyond.discounts));
                }
                ("latest_invoice" | "items.data.price", _) => {}
                _ => self.complaints.push(format!("the rig does not play `expand` of `{field}`")),
            }
        }
        Ok(())
    }

    /// The part of `all`, which is newest first, that a request asks for.
    fn page(url: &str, left: &mut Parameters, all: Vec<Value>) -> Value {
        let limit = left.take("limit").and_then(|limit| limit.parse().ok()).unwrap_or(10);
        let rest: Vec<Value> = match left.take("starting_after") {
            Some(last) => {
                all.into_iter().skip_while(|object| object["id"] != last.as_str()).skip(1).collect()
            }
            None => all,
        };
        let page: Vec<Value> = rest.iter().take(limit).cloned().collect();
        forms::list(url, &page, rest.len() > limit)
    }
}

/// Prices.
impl Played {
    async fn plan(&mut self, lookup_key: &str) -> Option<Value> {
        self.get(&format!("/v1/plans/{lookup_key}")).await.ok()
    }

    async fn prices(&mut self, left: &mut Parameters) -> Result<Value, Refusal> {
        let keys = left.take_list("lookup_keys");
        let active = left.take("active").map(|active| active == "true");
        let currency = left.take("currency");
        // All that there are.
        let recurring = left.take("type").is_none_or(|kind| kind == "recurring");
        let plans = self.all("/v1/plans", &[]).await?;
        let prices = plans.iter().rev().map(|plan| self.price_of(plan)).filter(|price| {
            recurring
                && (keys.is_empty() || keys.iter().any(|key| price["lookup_key"] == key.as_str()))
                && active.is_none_or(|active| price["active"] == active)
                && currency.as_ref().is_none_or(|currency| price["currency"] == currency.as_str())
        });
        Ok(Self::page("/v1/prices", left, prices.collect()))
    }

    async fn price(&mut self, id: &str) -> Result<Value, Refusal> {
        let plan = match forms::lookup_key(id) {
            Some(key) => self.plan(key).await,
            None => None,
        };
        plan.map(|plan| self.price_of(&plan)).ok_or_else(|| Refusal::missing("price", id))
    }

    /// localstripe's plan for the price that a parameter names.
    async fn plan_of(&mut self, price: &str, param: &str) -> Result<Value, Refusal> {
        let plan = match forms::lookup_key(price) {
            Some(key) => self.plan(key).await,
            None => None,
        };
        plan.ok_or_else(|| Refusal::no_such("price", price, param))
    }
}

/// Customers.
impl Played {
    pub(super) async fn customer(&mut self, id: &str) -> Result<Value, Refusal> {
        if self.deleted_customers.contains(id) {
            return Ok(json!({ "id": id, "object": "customer", "deleted": true }));
        }
        let raw = self.get(&format!("/v1/customers/{id}")).await?;
        Ok(self.in_form(&raw))
    }

    /// The customer that a parameter names.
    async fn customer_of(&mut self, id: &str) -> Result<Value, Refusal> {
        let missing = Refusal::no_such("customer", id, "customer");
        match self.customer(id).await {
            Ok(customer) if customer["deleted"] != true => Ok(customer),
            _ => Err(missing),
        }
    }

    /// The fields that localstripe takes as they are.
    fn of_customer(left: &mut Parameters) -> Fields {
        let mut fields = Fields::new();
        for name in ["name", "description", "email", "phone"] {
            fields.extend(left.take(name).map(|value| (name.to_owned(), value)));
        }
        for name in ["address", "metadata", "invoice_settings"] {
            fields.extend(left.take_below(name));
        }
        fields
    }

    async fn create_customer(&mut self, left: &mut Parameters) -> Result<Value, Refusal> {
        let fields = Self::of_customer(left);
        let id = self.call("POST", "/v1/customers", &fields).await?["id"].as_str().unwrap().to_owned();
        if let Some(token) = left.take("source")
            && let Err(refusal) = self.attach(&id, &token).await
        {
            // No card, no customer.
            self.call("DELETE", &format!("/v1/customers/{id}"), &Fields::new()).await?;
            return Err(refusal);
        }
        self.customer(&id).await
    }

    async fn update_customer(&mut self, id: &str, left: &mut Parameters) -> Result<Value, Refusal> {
        let path = format!("/v1/customers/{id}");
        if self.deleted_customers.contains(id) {
            return Err(Refusal::missing("customer", id));
        }
        self.get(&path).await?;
        let mut fields = Self::of_customer(left);
        let source = left.take("source");
        if let Some(token) = &source {
            fields.insert("default_source".to_owned(), self.attach(id, token).await?);
        } else if let Some(card) = left.take("default_source") {
            fields.insert("default_source".to_owned(), card);
        }
        if !fields.is_empty() {
            self.call("POST", &path, &fields).await?;
        }
        if source.is_some() {
            self.retry_what_is_past_due(id).await?;
        }
        self.customer(id).await
    }

    /// Makes a token's card one of the customer's, and gives its id.
    async fn attach(&mut self, customer: &str, token: &str) -> Result<String, Refusal> {
        if self.used_tokens.contains(token) {
            let message = format!("You cannot use a Stripe token more than once: {token}.");
            return Err(Refusal::coded(400, "token_already_used", Some("source"), &message));
        }
        let lasting = LASTING_TOKENS.iter().find(|(name, _)| *name == token);
        let card = match lasting {
            Some((_, number)) => self.token(number).await?,
            None => match self.get(&format!("/v1/tokens/{token}")).await {
                Ok(token) => token["id"].as_str().unwrap().to_owned(),
                Err(_) => return Err(Refusal::no_such("token", token, "source")),
            },
        };
        let attached = self.post(&format!("/v1/customers/{customer}/sources"), &[("source", &card)]).await?;
        self.used_tokens.insert(card);
        Ok(attached["id"].as_str().unwrap().to_owned())
    }

    /// A new token of a card.
    pub(super) async fn token(&mut self, number: &str) -> Result<String, Refusal> {
        let card = [
            ("card[number]", number),
            ("card[exp_month]", "12"),
            ("card[exp_year]", "2099"),
            ("card[cvc]", "123"),
        ];
        Ok(self.post("/v1/tokens", &card).await?["id"].as_str().unwrap().to_owned())
    }

    /// Makes a card the one that the customer pays with.
    pub(super) async fn pays_with(&mut self, customer: &str, number: &str) -> Result<(), Refusal> {
        let token = self.token(number).await?;
        let card = self.attach(customer, &token).await?;
        self.post(&format!("/v1/customers/{customer}"), &[("default_source", &card)]).await?;
        Ok(())
    }

    /// As Stripe does once there is another card: tries the newest open invoice of what is past due.
    async fn retry_what_is_past_due(&mut self, customer: &str) -> Result<(), Refusal> {
        for subscription in self.all_subscriptions(Some(customer)).await? {
            if subscription["status"] != "past_due" {
                continue;
            }
            let id = subscription["id"].as_str().unwrap();
            let invoices = self.all_invoices(&[("subscription", id)]).await?;
            if let Some(open) = invoices.iter().find(|invoice| invoice["status"] == "open") {
                self.pay(id, open["id"].as_str().unwrap()).await?;
            }
        }
        Ok(())
    }

    async fn delete_customer(&mut self, id: &str) -> Result<Value, Refusal> {
        if self.deleted_customers.contains(id) {
            return Err(Refusal::missing("customer", id));
        }
        self.customer(id).await?;
        for subscription in self.all_subscriptions(Some(id)).await? {
            if !ended(&subscription) {
                self.cancel_now(subscription["id"].as_str().unwrap()).await?;
            }
        }
        // localstripe keeps it, for what still points to it.
        self.deleted_customers.insert(id.to_owned());
        self.customer(id).await
    }
}

/// Subscriptions.
impl Played {
    fn beyond(&mut self, id: &str) -> &mut Beyond {
        self.subscriptions.entry(id.to_owned()).or_default()
    }

    async fn raw_subscription(&mut self, id: &str) -> Result<Value, Refusal> {
        if self.never_were.contains(id) {
            return Err(Refusal::missing("subscription", id));
        }
        self.get(&format!("/v1/subscriptions/{id}")).await
    }

    pub(super) async fn subscription(&mut self, id: &str) -> Result<Value, Refusal> {
        let raw = self.raw_subscription(id).await?;
        Ok(self.in_form(&raw))
    }

    /// All there are, or all of a customer, newest first.
    pub(super) async fn all_subscriptions(&mut self, customer: Option<&str>) -> Result<Vec<Value>, Refusal> {
        let all = self.all("/v1/subscriptions", &[("status", "all")]).await?;
        let matches = |raw: &&Value| {
            !self.never_was(raw) && customer.is_none_or(|customer| raw["customer"] == customer)
        };
        Ok(all.iter().rev().filter(matches).map(|raw| self.in_form(raw)).collect())
    }

    async fn subscriptions(&mut self, left: &mut Parameters) -> Result<Value, Refusal> {
        let (customer, status, price) = (left.take("customer"), left.take("status"), left.take("price"));
        if let Some(customer) = &customer
            && !self.deleted_customers.contains(customer)
        {
            self.customer_of(customer).await?;
        }
        let mut all = self.all_subscriptions(customer.as_deref()).await?;
        all.retain(|subscription| {
            let of_price = price
                .as_ref()
                .is_none_or(|price| subscription["items"]["data"][0]["price"]["id"] == price.as_str());
            of_price
                && match status.as_deref() {
                    Some("all") => true,
                    Some("ended") => ended(subscription),
                    Some(status) => subscription["status"] == status,
                    None => subscription["status"] != "canceled",
                }
        });
        Ok(Self::page("/v1/subscriptions", left, all))
    }

    /// The one coupon that a request names; Stripe's other kinds of discount are not played.
    async fn coupon_of(&mut self, left: &mut Parameters) -> Result<Option<Value>, Refusal> {
        let param = "discounts[0][coupon]";
        let Some(id) = left.take(param) else { return Ok(None) };
        let coupon = self.get(&format!("/v1/coupons/{id}")).await;
        coupon.ok().map(Some).ok_or_else(|| Refusal::no_such("coupon", &id, param))
    }

    /// When a trial ends that a request asks for.
    fn trial_of(left: &mut Parameters) -> Result<Option<Trial>, Refusal> {
        let days = left.take("trial_period_days").and_then(|days| days.parse::<i64>().ok());
        if let Some(days) = days.filter(|days| *days > 0) {
            return Ok(Some(Trial::Until(now() + days * 86_400)));
        }
        match left.take("trial_end").as_deref() {
            None => Ok(None),
            Some("now") => Ok(Some(Trial::EndsNow)),
            Some(end) => match end.parse() {
                Ok(end) if end > now() => Ok(Some(Trial::Until(end))),
                _ => Err(Refusal::invalid(Some("trial_end"), "Invalid timestamp: must be in the future")),
            },
        }
    }

    /// The id of the plan, and the fields that make the item.
    async fn item_of(&mut self, left: &mut Parameters) -> Result<(Option<Value>, Fields), Refusal> {
        let param = "items[0][price]";
        let mut fields = Fields::new();
        let mut plan = None;
        if let Some(price) = left.take(param) {
            let found = self.plan_of(&price, param).await?;
            fields.insert("items[0][plan]".to_owned(), found["id"].as_str().unwrap().to_owned());
            plan = Some(found);
        }
        if let Some(quantity) = left.take("items[0][quantity]") {
            fields.insert("items[0][quantity]".to_owned(), quantity);
        }
        Ok((plan, fields))
    }

    async fn create_subscription(&mut self, left: &mut Parameters) -> Result<Value, Refusal> {
        let customer = left.take("customer").unwrap_or_default();
        let shown = self.customer_of(&customer).await?;
        let (plan, mut fields) = self.item_of(left).await?;
        let Some(plan) = plan else {
            return Err(Refusal::coded(
                400,
                "parameter_missing",
                Some("items"),
                "Missing required param: items.",
            ));
        };
        let coupon = self.coupon_of(left).await?;
        let trial = match Self::trial_of(left)? {
            Some(Trial::Until(end)) => Some(end),
            Some(Trial::EndsNow) | None => None,
        };
        let metadata = left.take_below("metadata");
        let behavior = left.take("payment_behavior");
        // Nothing is there yet to be prorated.
        left.take("proration_behavior");
        let quantity =
            fields.get("items[0][quantity]").and_then(|quantity| quantity.parse().ok()).unwrap_or(1);
        let amount = plan["amount"].as_i64().unwrap() * quantity;
        let off = coupon.as_ref().map_or(0, |coupon| amount_off(coupon, amount));
        let pays = [&shown["default_source"], &shown["invoice_settings"]["default_payment_method"]];
        if trial.is_none() && amount > off && pays.iter().all(|card| card.is_null()) {
            let message = "This customer has no attached payment source or default payment method.";
            return Err(Refusal::coded(400, "resource_missing", None, message));
        }
        if trial.is_none() && off > 0 {
            let (off, currency) = ((-off).to_string(), plan["currency"].as_str().unwrap());
            let item = [("customer", customer.as_str()), ("amount", &off), ("currency", currency)];
            self.post("/v1/invoiceitems", &item).await?;
        }
        fields.insert("customer".to_owned(), customer.clone());
        fields.extend(metadata);
        fields.extend(trial.map(|end| ("trial_end".to_owned(), end.to_string())));
        let raw = self.call("POST", "/v1/subscriptions", &fields).await?;
        let id = raw["id"].as_str().unwrap().to_owned();
        if let Some(invoice) = raw["latest_invoice"].as_str() {
            self.reasons.insert(invoice.to_owned(), "subscription_create");
        }
        match behavior.as_deref() {
            // localstripe 1.15.10 takes `error_if_incomplete`, and then lets it be incomplete.
            Some("error_if_incomplete") if trial.is_none() && raw["status"] == "incomplete" => {
                self.never_were.insert(id.clone());
                self.call("DELETE", &format!("/v1/subscriptions/{id}"), &Fields::new()).await?;
                return Err(Refusal::card_declined());
            }
            None | Some("allow_incomplete" | "error_if_incomplete") => {}
            Some(other) => {
                self.complaints.push(format!("the rig does not play payment_behavior={other}"));
            }
        }
        let start = now();
        let beyond = self.beyond(&id);
        beyond.item = raw["items"]["data"][0]["id"].as_str().map(str::to_owned);
        beyond.discounts =
            coupon.iter().map(|coupon| forms::discount(coupon, &customer, &id, start)).collect();
        if let Some(end) = trial {
            beyond.trial = Some((start, end));
            beyond.period = beyond.trial;
            beyond.in_trial = true;
        }
        if left.is_true("cancel_at_period_end") {
            self.ends_with_period(&id, true).await?;
        }
        self.subscription(&id).await
    }

    async fn ends_with_period(&mut self, id: &str, ends: bool) -> Result<(), Refusal> {
        let value = ends.to_string();
        self.post(&format!("/v1/subscriptions/{id}"), &[("cancel_at_period_end", &value)]).await?;
        let beyond = self.beyond(id);
        beyond.cancel_at = None;
        beyond.canceled_at = ends.then(now);
        Ok(())
    }

    async fn update_subscription(&mut self, id: &str, left: &mut Parameters) -> Result<Value, Refusal> {
        let before = self.subscription(id).await?;
        let metadata = left.take_below("metadata");
        if ended(&before) && left.0.keys().any(|name| !name.starts_with("cancellation_details[")) {
            let message = "A canceled subscription can only update its cancellation_details and metadata.";
            return Err(Refusal::invalid(None, message));
        }
        let item = &before["items"]["data"][0];
        let named = left.take("items[0][id]");
        if named.as_ref().is_some_and(|named| item["id"] != named.as_str()) {
            return Err(Refusal::no_such("subscription item", &named.unwrap(), "items[0][id]"));
        }
        let (plan, fields) = self.item_of(left).await?;
        if !fields.is_empty() && named.is_none() {
            let lacks = "without items[0][id] Stripe adds a second item, and the rig does not play two";
            self.complaints.push(format!("POST /v1/subscriptions/{id}: {lacks}"));
        }
        let coupon = self.coupon_of(left).await?;
        let trial = Self::trial_of(left)?;
        let prorations = left.take("proration_behavior");
        let all_or_nothing = left.take("payment_behavior").as_deref() == Some("error_if_incomplete");
        let charges_now = matches!(trial, Some(Trial::EndsNow)) && before["status"] == "trialing"
            || plan.is_some() && prorations.as_deref() == Some("always_invoice");
        if charges_now && all_or_nothing && self.charge_would_fail(&before["customer"]).await? {
            return Err(Refusal::card_declined());
        }

        if !fields.is_empty() {
            self.call("POST", &format!("/v1/subscriptions/{id}"), &fields).await?;
            if prorations.as_deref() == Some("none") {
                self.drop_prorations(id, &before["customer"]).await?;
            }
        }
        if !metadata.is_empty() {
            let mut all = before["metadata"].clone();
            for (name, value) in &metadata {
                all[name.trim_start_matches("metadata[").trim_end_matches(']')] = json!(value);
            }
            self.beyond(id).metadata = forms::without_empty(&all).as_object().cloned();
        }
        if let Some(coupon) = &coupon {
            let discount = forms::discount(coupon, before["customer"].as_str().unwrap(), id, now());
            self.beyond(id).discounts = vec![discount];
        } else if left.take("discounts").is_some_and(|none| none.is_empty()) {
            self.beyond(id).discounts.clear();
        }
        match left.take("cancel_at").as_deref() {
            None => {}
            Some("") => {
                self.beyond(id).cancel_at = None;
                self.beyond(id).canceled_at = None;
            }
            Some("min_period_end" | "max_period_end") => {
                self.beyond(id).cancel_at = item["current_period_end"].as_i64();
                self.beyond(id).canceled_at = Some(now());
            }
            Some(time) => {
                self.beyond(id).cancel_at = time.parse().ok();
                self.beyond(id).canceled_at = Some(now());
            }
        }
        if let Some(ends) = left.take("cancel_at_period_end") {
            self.ends_with_period(id, ends == "true").await?;
        }
        match trial {
            Some(Trial::Until(end)) => {
                let beyond = self.beyond(id);
                beyond.trial = Some((now(), end));
                beyond.period = beyond.trial;
                beyond.in_trial = true;
            }
            Some(Trial::EndsNow) if before["status"] == "trialing" => {
                let (start, beyond) = (now(), self.beyond(id));
                beyond.trial = beyond.trial.map(|(began, _)| (began, start));
                beyond.in_trial = false;
                // The first paid period begins now, with localstripe's length of a month.
                let raw = self.raw_subscription(id).await?;
                let (from, to) = forms::period(&raw, &Beyond::default());
                self.beyond(id).period = Some((start, start + to - from));
            }
            Some(Trial::EndsNow) | None => {}
        }
        if charges_now {
            let reason = if plan.is_some() { "subscription_update" } else { "subscription_cycle" };
            self.bill(id, reason).await?;
        }
        self.subscription(id).await
    }

    /// Whether a charge of what the customer pays with is declined.
    async fn charge_would_fail(&mut self, customer: &Value) -> Result<bool, Refusal> {
        let raw = self.get(&format!("/v1/customers/{}", customer.as_str().unwrap())).await?;
        let mut sources = raw["sources"]["data"].as_array().into_iter().flatten();
        let card = sources.find(|source| source["id"] == raw["default_source"]);
        Ok(card.is_none_or(|card| super::CHARGE_FAILS_CARD.ends_with(card["last4"].as_str().unwrap())))
    }

    /// Removes what localstripe gives back of a price that was left, which it always does.
    async fn drop_prorations(&mut self, id: &str, customer: &Value) -> Result<(), Refusal> {
        let customer = customer.as_str().unwrap();
        for item in self.all("/v1/invoiceitems", &[("customer", customer)]).await? {
            if item["proration"] == true && item["subscription"] == id {
                let path = format!("/v1/invoiceitems/{}", item["id"].as_str().unwrap());
                self.call("DELETE", &path, &Fields::new()).await?;
            }
        }
        Ok(())
    }

    /// Makes an invoice of what the subscription costs, and tries to have it paid.
    async fn bill(&mut self, id: &str, reason: &'static str) -> Result<(), Refusal> {
        let customer = self.raw_subscription(id).await?["customer"].as_str().unwrap().to_owned();
        let made = self.post("/v1/invoices", &[("customer", &customer), ("subscription", id)]).await?;
        let invoice = made["id"].as_str().unwrap();
        self.reasons.insert(invoice.to_owned(), reason);
        self.pay(id, invoice).await
    }

    /// Tries to have an invoice paid. localstripe 1.15.10 lets the subscription be active whatever comes
    /// of it.
    async fn pay(&mut self, subscription: &str, invoice: &str) -> Result<(), Refusal> {
        let paid = self.post(&format!("/v1/invoices/{invoice}/pay"), &[]).await;
        self.beyond(subscription).past_due = !paid.is_ok_and(|invoice| invoice["status"] == "paid");
        Ok(())
    }

    /// Lets the next period begin, which is charged.
    pub(super) async fn next_period(&mut self, id: &str) -> Result<(), Refusal> {
        let raw = self.raw_subscription(id).await?;
        let beyond = self.beyond(id);
        let (start, end) = forms::period(&raw, beyond);
        beyond.period = Some((end, end + end - start));
        beyond.in_trial = false;
        self.bill(id, "subscription_cycle").await
    }

    async fn cancel(&mut self, id: &str, left: &mut Parameters) -> Result<Value, Refusal> {
        for name in WITHOUT_EFFECT {
            left.take(name);
        }
        if ended(&self.subscription(id).await?) {
            return Err(Refusal::missing("subscription", id));
        }
        self.cancel_now(id).await
    }

    async fn cancel_now(&mut self, id: &str) -> Result<Value, Refusal> {
        self.call("DELETE", &format!("/v1/subscriptions/{id}"), &Fields::new()).await?;
        // What a test shows is of the time before.
        self.shown.lock().unwrap().remove(id);
        let beyond = self.beyond(id);
        beyond.canceled_at = Some(now());
        self.subscription(id).await
    }
}

/// Invoices.
impl Played {
    async fn invoice(&mut self, id: &str) -> Result<Value, Refusal> {
        let raw = self.get(&format!("/v1/invoices/{id}")).await?;
        Ok(self.in_form(&raw))
    }

    /// Newest first.
    pub(super) async fn all_invoices(&mut self, filter: &[(&str, &str)]) -> Result<Vec<Value>, Refusal> {
        let mut all = self.all("/v1/invoices", filter).await?;
        // localstripe orders them by the end of their period, and those of one period as they were made.
        let made = |raw: &Value| (raw["created"].as_i64(), raw["date"].as_i64());
        all.reverse();
        all.sort_by_key(|raw| std::cmp::Reverse(made(raw)));
        all.retain(|raw| !self.never_was(raw));
        Ok(all.iter().map(|raw| self.in_form(raw)).collect())
    }

    async fn invoices(&mut self, left: &mut Parameters) -> Result<Value, Refusal> {
        let (customer, subscription) = (left.take("customer"), left.take("subscription"));
        let status = left.take("status");
        let mut filter = vec![];
        if let Some(id) = &customer {
            self.customer_of(id).await?;
            filter.push(("customer", id.as_str()));
        }
        if let Some(id) = &subscription {
            if self.raw_subscription(id).await.is_err() {
                return Err(Refusal::no_such("subscription", id, "subscription"));
            }
            filter.push(("subscription", id.as_str()));
        }
        let mut all = self.all_invoices(&filter).await?;
        all.retain(|invoice| status.as_ref().is_none_or(|status| invoice["status"] == status.as_str()));
        Ok(Self::page("/v1/invoices", left, all))
    }
}

/// What a request wants of a trial.
enum Trial {
    Until(i64),
    EndsNow,
}

/// Whether a subscription is over.
pub(super) fn ended(subscription: &Value) -> bool {
    matches!(subscription["status"].as_str(), Some("canceled" | "incomplete_expired"))
}

/// What a coupon takes off `amount`.
fn amount_off(coupon: &Value, amount: i64) -> i64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "amounts are small")]
    let share =
        coupon["percent_off"].as_f64().map(|percent| (amount as f64 * percent / 100.0).round() as i64);
    share.or(coupon["amount_off"].as_i64()).unwrap_or_default().min(amount)
}
