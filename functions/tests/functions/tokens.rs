//! Tokens that are not what they should be, each of which one deployment or another has taken: the attacks of
//! RFC 8725, and what parsers are known to let pass. All but a few are signed with the very key of the provider.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use aws_lc_rs::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use axum::{Router, routing::get};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use super::api::{Answer, Api};

/// What is refused, the token, and the code that says so.
type Case = (String, String, &'static str);

const INVALID: &str = "invalid_token";

fn base64url(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// `members` with `changes`, of which null takes a member out.
fn changed(members: &Value, changes: &Value) -> Value {
    let mut members = members.clone();
    let all = members.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            all.remove(name);
        } else {
            all.insert(name.clone(), value.clone());
        }
    }
    members
}

/// `object` with one more member, written out, before the others or behind them.
fn with_member(object: &Value, member: &str, is_first: bool) -> String {
    let text = object.to_string();
    let inner = &text[1..text.len() - 1];
    if is_first { format!("{{{member},{inner}}}") } else { format!("{{{inner},{member}}}") }
}

/// The provider's signing key, a good header and good claims.
struct Forge<'a> {
    api: &'a Api,
    header: Value,
    claims: Value,
    /// The key as it is published.
    jwk: Value,
}

impl<'a> Forge<'a> {
    async fn of(api: &'a Api) -> Self {
        let jwk = api.send("GET", "/_local/oidc/jwks", None, None).await.ok()["keys"][0].take();
        let identity = api.stack.identity();
        Self {
            api,
            header: json!({ "alg": "ES256", "typ": "at+jwt", "kid": jwk["kid"] }),
            claims: json!({
                "iss": identity.issuer(), "aud": identity.audience(), "sub": "mallory", "exp": 4_102_444_800_u32,
                "email": "mallory@example.com", "email_verified": true,
            }),
            jwk,
        }
    }

    /// A token of these texts, signed.
    fn signed(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        let message = format!("{}.{}", base64url(header), base64url(claims));
        self.api.stack.identity().sign_message(&message).unwrap()
    }

    fn good(&self) -> String {
        self.signed(self.header.to_string(), self.claims.to_string())
    }

    fn with_header(&self, changes: &Value) -> String {
        self.signed(changed(&self.header, changes).to_string(), self.claims.to_string())
    }

    fn with_claims(&self, changes: &Value) -> String {
        self.signed(self.header.to_string(), changed(&self.claims, changes).to_string())
    }

    /// Under `header`, the good claims with a signature of another's making.
    fn with_signature(&self, header: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let message = format!("{}.{}", base64url(header.to_string()), base64url(self.claims.to_string()));
        format!("{message}.{}", base64url(sign(message.as_bytes())))
    }

    /// An uncompressed point, as certificates have it.
    fn public_point(&self) -> Vec<u8> {
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(self.jwk[name].as_str().unwrap()).unwrap();
        [vec![4], coordinate("x"), coordinate("y")].concat()
    }
}

/// Claims that say something else than they must.
fn claims(forge: &Forge<'_>) -> Vec<Case> {
    let (iss, aud) = (forge.claims["iss"].as_str().unwrap(), &forge.claims["aud"]);
    let changes = [
        (json!({ "iss": null }), INVALID),
        (json!({ "iss": "" }), INVALID),
        (json!({ "iss": "https://other.example" }), INVALID),
        (json!({ "iss": format!("{iss}/") }), INVALID),
        (json!({ "iss": format!("{iss}.other.example") }), INVALID),
        (json!({ "iss": iss.to_uppercase() }), INVALID),
        (json!({ "iss": [iss] }), INVALID),
        (json!({ "iss": { "": iss } }), INVALID),
        (json!({ "aud": null }), INVALID),
        (json!({ "aud": "" }), INVALID),
        (json!({ "aud": "other" }), INVALID),
        (json!({ "aud": format!("{} other", aud.as_str().unwrap()) }), INVALID),
        (json!({ "aud": [] }), INVALID),
        (json!({ "aud": ["other"] }), INVALID),
        (json!({ "aud": [[aud]] }), INVALID),
        (json!({ "aud": { "0": aud } }), INVALID),
        (json!({ "aud": 0 }), INVALID),
        (json!({ "aud": true }), INVALID),
        (json!({ "aud": "other", "client_id": aud }), INVALID),
        (json!({ "aud": [], "client_id": aud }), INVALID),
        (json!({ "aud": null, "client_id": "other" }), INVALID),
        (json!({ "aud": null, "client_id": [aud] }), INVALID),
        (json!({ "sub": null }), INVALID),
        (json!({ "sub": "" }), INVALID),
        (json!({ "sub": 0 }), INVALID),
        (json!({ "sub": ["mallory"] }), INVALID),
        (json!({ "exp": null }), INVALID),
        (json!({ "exp": "4102444800" }), INVALID),
        (json!({ "exp": "never" }), INVALID),
        (json!({ "exp": true }), INVALID),
        (json!({ "exp": [4_102_444_800_u32] }), INVALID),
        (json!({ "exp": -1 }), INVALID),
        (json!({ "exp": i64::MIN }), INVALID),
        (json!({ "exp": 0 }), "expired_token"),
        (json!({ "exp": 1_577_836_800 }), "expired_token"),
        (json!({ "exp": 1_577_836_800.5 }), "expired_token"),
        (json!({ "nbf": 4_102_444_800_u32 }), INVALID),
        (json!({ "nbf": u64::MAX }), INVALID),
        (json!({ "nbf": "now" }), INVALID),
        (json!({ "nbf": {} }), INVALID),
    ];
    let mut cases: Vec<Case> = changes
        .iter()
        .map(|(changes, code)| (format!("claims with {changes}"), forge.with_claims(changes), *code))
        .collect();
    let header = forge.header.to_string();
    let numbers =
        ["1e400", "-1e400", "99999999999999999999999999", "NaN", "Infinity", "0x7fffffff", "+4102444800"];
    for number in numbers {
        let without = changed(&forge.claims, &json!({ "exp": null }));
        let claims = with_member(&without, &format!(r#""exp":{number}"#), true);
        cases.push((format!("exp {number}"), forge.signed(&header, claims), INVALID));
    }
    cases
}

/// Headers that ask for something else than is done.
fn headers(forge: &Forge<'_>) -> Vec<Case> {
    let kid = forge.jwk["kid"].as_str().unwrap();
    let changes = [
        json!({ "alg": "ES384" }),
        json!({ "alg": "ES256K" }),
        json!({ "alg": "RS256" }),
        json!({ "alg": "PS256" }),
        json!({ "alg": "EdDSA" }),
        json!({ "alg": "Ed25519" }),
        json!({ "alg": "ECDH-ES" }),
        json!({ "alg": "dir", "enc": "A128GCM" }),
        json!({ "alg": "es256" }),
        json!({ "alg": "ES256 " }),
        json!({ "alg": "" }),
        json!({ "alg": null }),
        json!({ "alg": ["ES256"] }),
        json!({ "alg": 256 }),
        json!({ "alg": { "ES256": true } }),
        // Other kinds of token of the same issuer.
        json!({ "typ": "logout+jwt" }),
        json!({ "typ": "dpop+jwt" }),
        json!({ "typ": "secevent+jwt" }),
        json!({ "typ": "application/token-introspection+jwt" }),
        json!({ "typ": "at+jwt+other" }),
        json!({ "typ": "" }),
        json!({ "typ": ["at+jwt"] }),
        json!({ "kid": "" }),
        json!({ "kid": "other" }),
        json!({ "kid": format!("{kid} ") }),
        json!({ "kid": format!("{kid}\0") }),
        json!({ "kid": kid.to_lowercase() }),
        json!({ "kid": "../../../../dev/null" }),
        json!({ "kid": format!("file:///{kid}") }),
        json!({ "kid": "' UNION SELECT 'secret' --" }),
        json!({ "kid": "| id" }),
        json!({ "kid": "k".repeat(5_000) }),
        json!({ "kid": [kid] }),
        json!({ "kid": { "$ne": "" } }),
        json!({ "kid": 0 }),
        // A key of the token's own choosing, be it the right one.
        json!({ "jwk": forge.jwk }),
        json!({ "jku": format!("{}/jwks", forge.claims["iss"].as_str().unwrap()) }),
        json!({ "jku": "https://other.example/jwks" }),
        json!({ "x5u": "https://other.example/certificate" }),
        json!({ "x5c": [] }),
        json!({ "x5c": ["MIIB"] }),
        // Extensions, none of which is understood.
        json!({ "crit": [] }),
        json!({ "crit": ["exp"] }),
        json!({ "crit": ["alg"] }),
        json!({ "crit": ["other"], "other": 1 }),
        json!({ "crit": "b64" }),
        json!({ "crit": ["b64"], "b64": false }),
        json!({ "crit": ["b64"], "b64": true }),
    ];
    changes
        .iter()
        .map(|changes| {
            let mut named = changes.to_string();
            named.truncate(100);
            (format!("a header with {named}"), forge.with_header(changes), INVALID)
        })
        .collect()
}

/// Signatures that are none, or of another algorithm or key.
fn signatures(forge: &Forge<'_>) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: &str, token: String| cases.push((name.to_owned(), token, INVALID));
    let good = forge.good();
    let (message, signature) = good.rsplit_once('.').unwrap();

    for alg in ["none", "None", "NONE", "nOnE"] {
        for kid in [forge.jwk["kid"].clone(), Value::Null] {
            let header = changed(&forge.header, &json!({ "alg": alg, "kid": kid }));
            add(&format!("alg {alg} without signature"), forge.with_signature(&header, |_| Vec::new()));
        }
        add(&format!("alg {alg} with a signature"), forge.with_header(&json!({ "alg": alg })));
    }

    // What is public, taken for a secret.
    let point = forge.public_point();
    let prefix = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let der = [&prefix[..], &point].concat();
    let lines: Vec<_> = STANDARD.encode(&der).as_bytes().chunks(64).map(<[u8]>::to_vec).collect();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        String::from_utf8(lines.join(&b'\n')).unwrap()
    );
    let text = |value: &Value| value.as_str().unwrap().as_bytes().to_vec();
    for (name, secret) in [
        ("point", point.clone()),
        ("DER", der),
        ("PEM", pem.trim_end().as_bytes().to_vec()),
        ("PEM and a line break", pem.into_bytes()),
        ("JWK", forge.jwk.to_string().into_bytes()),
        ("x", text(&forge.jwk["x"])),
        ("kid", text(&forge.jwk["kid"])),
        ("nothing", Vec::new()),
    ] {
        for (alg, algorithm) in [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512)] {
            let key = hmac::Key::new(algorithm, &secret);
            let sign = |message: &[u8]| hmac::sign(&key, message).as_ref().to_vec();
            let header = changed(&forge.header, &json!({ "alg": alg }));
            add(&format!("{alg} with the public key's {name}"), forge.with_signature(&header, sign));
            add(
                &format!("{alg} with the public key's {name}, called ES256"),
                forge.with_signature(&forge.header, sign),
            );
        }
    }

    // A key that comes with the token, or under the name of the right one.
    let own = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    let jwk =
        json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(own.public_key()), "kid": forge.jwk["kid"] });
    let sign = |message: &[u8]| own.sign(message).as_ref().to_vec();
    for changes in [
        json!({ "alg": "EdDSA" }),
        json!({ "alg": "EdDSA", "jwk": jwk }),
        json!({ "kid": null, "alg": "EdDSA" }),
    ] {
        let header = changed(&forge.header, &changes);
        add("a key of one's own", forge.with_signature(&header, sign));
    }
    add("a key of one's own, called ES256", forge.with_signature(&forge.header, sign));

    // ECDSA of zeros verifies where nobody looks for it (CVE-2022-21449); and a signature has one form.
    for (name, bytes) in [
        ("zeros", vec![0; 64]),
        ("ones", vec![0xff; 64]),
        ("one byte", vec![0]),
        ("zeros in DER", vec![0x30, 6, 2, 1, 0, 2, 1, 0]),
    ] {
        add(&format!("a signature of {name}"), forge.with_signature(&forge.header, |_| bytes.clone()));
    }
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let with_bytes = |bytes: &[u8]| format!("{message}.{}", base64url(bytes));
    add("a signature too short", with_bytes(&bytes[..63]));
    add("a signature too long", with_bytes(&[&bytes[..], &[0]].concat()));
    add("a signature twice", with_bytes(&[&bytes[..], &bytes].concat()));
    for place in [0, 31, 32, 63] {
        let mut bytes = bytes.clone();
        bytes[place] ^= 1;
        add(&format!("a signature with another byte {place}"), with_bytes(&bytes));
    }
    let (header, claims) = message.split_once('.').unwrap();
    let others = base64url(changed(&forge.claims, &json!({ "sub": "alice" })).to_string());
    add("claims that were not signed", format!("{header}.{others}.{signature}"));
    let other = base64url(changed(&forge.header, &json!({ "typ": "JWT" })).to_string());
    add("a header that was not signed", format!("{other}.{claims}.{signature}"));
    cases
}

/// Texts that are no token, or not written as one.
fn forms(forge: &Forge<'_>) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: &str, token: String| cases.push((name.to_owned(), token, INVALID));
    let (header, claims) = (forge.header.to_string(), forge.claims.to_string());
    let good = forge.good();
    let [head, body, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();

    for (name, token) in [
        ("one part", head.to_owned()),
        ("two parts", format!("{head}.{body}")),
        ("no signature", format!("{head}.{body}.")),
        ("no claims", format!("{head}..{signature}")),
        ("no header", format!(".{body}.{signature}")),
        ("dots", "..".to_owned()),
        ("a part too many", format!("{good}.{signature}")),
        ("a dot too many", format!("{good}.")),
        ("a dot before", format!(".{good}")),
        ("a JWE", format!("{head}.{signature}.{signature}.{body}.{signature}")),
        ("a JWS in JSON", json!({ "protected": head, "payload": body, "signature": signature }).to_string()),
        ("a JWS in quotes", format!("\"{good}\"")),
        ("two tokens", format!("{good}, Bearer {good}")),
        ("two tokens without a comma", format!("{good} {good}")),
        ("a blank within", format!("{head}. {body}.{signature}")),
        ("a tab within", format!("{head}.\t{body}.{signature}")),
        ("padding of the header", format!("{head}=.{body}.{signature}")),
        ("padding of the signature", format!("{good}==")),
        ("an escape", format!("{good}%3D")),
        ("something that is nothing", "null".to_owned()),
        ("another kind of token", "ya29.a0AfH6SMBx".to_owned()),
    ] {
        add(name, token);
    }
    // The last character has four bits that say nothing: one token, sixteen spellings.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let other = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    add("another spelling of the signature", format!("{}{other}", &good[..good.len() - 1]));

    // What is signed as it is written, in another alphabet or with padding.
    let signed = |message: String| forge.api.stack.identity().sign_message(&message).unwrap();
    let wide = changed(&forge.claims, &json!({ "name": "\u{fbff}\u{ffff}~~~???>>>" })).to_string();
    let standard = STANDARD_NO_PAD.encode(&wide);
    assert!(standard.contains(['+', '/']), "{standard}");
    add("the standard alphabet", signed(format!("{head}.{standard}")));
    let padded = |text: &str| {
        let padded = (0..3).map(|more| STANDARD.encode(format!("{text}{}", " ".repeat(more))));
        padded.clone().find(|text| text.ends_with('=')).unwrap().replace('+', "-").replace('/', "_")
    };
    add("padding that is signed", signed(format!("{head}.{}", padded(&claims))));
    add("padding in the header that is signed", signed(format!("{}.{body}", padded(&header))));
    add("claims that are not encoded", signed(format!("{head}.{claims}")));
    let unencoded = changed(&forge.header, &json!({ "b64": false })).to_string();
    add("claims that are not encoded, as b64 says", signed(format!("{}.{claims}", base64url(unencoded))));

    for text in ["", "null", "[]", "1", "\"text\"", "{", "{}", "{}{}", "not json", "\u{feff}{}"] {
        add(&format!("a header that is {text}"), forge.signed(text, &claims));
        add(&format!("claims that are {text}"), forge.signed(&header, text));
    }
    for bytes in [&b"\xff\xfe{\0}\0"[..], b"{\"alg\":\"ES256\xff\"}", b"\0"] {
        add("a header that is not UTF-8", forge.signed(bytes, &claims));
        add("claims that are not UTF-8", forge.signed(&header, bytes));
    }
    add("claims behind a mark of byte order", forge.signed(&header, format!("\u{feff}{claims}")));
    add("claims with something behind them", forge.signed(&header, format!("{claims} x")));
    add("claims that are cut off", forge.signed(&header, &claims[..claims.len() - 1]));
    add("claims in an array", forge.signed(&header, format!("[{claims}]")));
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}0{}", open.repeat(700), close.repeat(700));
        add(
            "a header that is deep",
            forge.signed(with_member(&forge.header, &format!("\"x\":{deep}"), true), &claims),
        );
        add(
            "claims that are deep",
            forge.signed(&header, with_member(&forge.claims, &format!("\"x\":{deep}"), true)),
        );
    }

    let filler = |length: usize| forge.with_claims(&json!({ "filler": "x".repeat(length) }));
    let unfilled = filler(0).len();
    let long = filler((8 * 1024 + 4 - unfilled) * 3 / 4);
    assert!((8 * 1024 + 1..8 * 1024 + 10).contains(&long.len()), "{}", long.len());
    add("a token over 8 KiB", long);
    cases
}

/// Members that stand there twice: which of the two counts depends on who reads.
fn repetitions(forge: &Forge<'_>) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: &str, token: String| cases.push((name.to_owned(), token, INVALID));
    let (header, claims) = (forge.header.to_string(), forge.claims.to_string());
    for member in
        [r#""alg":"none""#, r#""alg":"ES256""#, r#""\u0061lg":"none""#, r#""kid":"other""#, r#""typ":"JWT""#]
    {
        for is_first in [true, false] {
            let header = with_member(&forge.header, member, is_first);
            add(&format!("a header with one more {member}"), forge.signed(header, &claims));
        }
    }
    for member in [
        r#""sub":"alice""#,
        r#""sub":"mallory""#,
        r#""\u0073ub":"alice""#,
        r#""iss":"https://other.example""#,
        r#""aud":"other""#,
        r#""exp":1"#,
        r#""exp":4102444801"#,
        r#""email":"alice@example.com""#,
        r#""email_verified":false"#,
    ] {
        for is_first in [true, false] {
            let claims = with_member(&forge.claims, member, is_first);
            add(&format!("claims with one more {member}"), forge.signed(&header, claims));
        }
    }
    let twice = changed(&forge.claims, &json!({ "nbf": 1 }));
    add("two nbf", forge.signed(&header, with_member(&twice, r#""nbf":2"#, true)));
    cases
}

/// Asks for what would be done for the good token.
async fn attempt(api: &Api, token: &str) -> Answer {
    api.bearer(token).post("/api/bucket/create_classic", &json!({ "name": "Mine" })).await
}

#[tokio::test]
async fn no_forged_token_gets_past_401_or_changes_anything() {
    let api = Api::start().await;
    let forge = Forge::of(&api).await;
    let cases =
        [claims(&forge), headers(&forge), signatures(&forge), forms(&forge), repetitions(&forge)].concat();
    assert!(cases.len() > 200, "{}", cases.len());

    for (name, token, code) in &cases {
        let answer = attempt(&api, token).await;

        assert_eq!((answer.status, &answer.body["code"]), (401, &json!(code)), "{name}: {}", answer.body);
        answer.is_problem(401, code);
        let challenge = answer.headers["www-authenticate"].to_str().unwrap();
        assert_eq!(challenge, "Bearer error=\"invalid_token\"", "{name}");
    }
    assert!(api.rows().await.is_empty());
    // None has cost the instance its life.
    assert_eq!(api.stack.instances_started("create"), 1);
    // It was not for another reason.
    attempt(&api, &forge.good()).await.ok();
}

#[tokio::test]
async fn what_a_token_may_be_besides_is_taken() {
    let api = Api::start().await;
    let forge = Forge::of(&api).await;
    let aud = &forge.claims["aud"];

    for token in [
        // When it was issued only tells the older of two apart: nonsense counts as nothing said.
        forge.with_claims(&json!({ "iat": "yesterday" })),
        forge.with_claims(&json!({ "iat": -1 })),
        forge.with_claims(&json!({ "iat": 1e300 })),
        forge.with_claims(&json!({ "iat": u64::MAX })),
        forge.with_claims(&json!({ "iat": {} })),
        forge.with_claims(&json!({ "exp": u64::MAX })),
        forge.with_claims(&json!({ "nbf": 0 })),
        forge.with_claims(&json!({ "aud": ["other", aud] })),
        forge.with_claims(&json!({ "aud": null, "client_id": aud })),
        forge.with_header(&json!({ "kid": null })),
        forge.with_header(&json!({ "typ": null })),
        forge.with_header(&json!({ "typ": "Application/AT+JWT" })),
        // RFC 7515 4: what is not understood is ignored.
        forge.with_header(&json!({ "x5t": "other", "cty": "JWT", "zip": "DEF" })),
    ] {
        api.bearer(&token).get("/api/users/isLogged").await.ok();
    }
}

#[tokio::test]
async fn a_token_anywhere_but_in_authorization_is_none() {
    let api = Api::start().await;
    let token = Forge::of(&api).await.good();
    let body = json!({ "name": "Mine", "access_token": token, "token": token }).to_string();
    let bearer = format!("Bearer {token}");

    for (query, headers) in [
        ("?access_token=", vec![]),
        ("?authorization=Bearer%20", vec![]),
        ("?", vec![("cookie", bearer.as_str()), ("x-access-token", token.as_str())]),
        ("?", vec![("proxy-authorization", bearer.as_str()), ("x-authorization", bearer.as_str())]),
        ("?", vec![("authorization", token.as_str())]),
        ("?", vec![("authorization", "Bearer")]),
        ("?", vec![("authorization", "Bearer ")]),
    ] {
        let path = format!("/api/bucket/create_classic{query}{token}");
        let headers = [headers, vec![("content-type", "application/json")]].concat();

        api.send_with("POST", &path, &headers, &body).await.is_problem(401, "missing_token");
    }
    assert!(api.rows().await.is_empty());
}

/// A provider whose keys are changed, and that counts how often it is asked for them.
#[derive(Clone)]
struct Provider {
    issuer: String,
    key: Arc<Mutex<u8>>,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    async fn start(key: u8) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let provider = Self { issuer, key: Arc::new(Mutex::new(key)), asked: Arc::default() };
        let (discovery, keys) = (provider.clone(), provider.clone());
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(async move || {
                    let issuer = &discovery.issuer;
                    json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/jwks") }).to_string()
                }),
            )
            .route(
                "/jwks",
                get(async move || {
                    keys.asked.fetch_add(1, Ordering::Relaxed);
                    Self::key_set(*keys.key.lock().unwrap()).to_string()
                }),
            );
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    fn pair(key: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[key; 32]).unwrap()
    }

    fn key_set(key: u8) -> Value {
        let x = base64url(Self::pair(key).public_key());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": key.to_string(), "alg": "EdDSA" }] })
    }

    /// A token of the key `key` that says it is of `kid`.
    fn token(&self, key: u8, kid: &str) -> String {
        let header = json!({ "alg": "EdDSA", "kid": kid });
        let claims =
            json!({ "iss": self.issuer, "aud": "bucket-api", "sub": "alice", "exp": 4_102_444_800_u32 });
        let message = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        format!("{message}.{}", base64url(Self::pair(key).sign(message.as_bytes())))
    }
}

#[tokio::test]
async fn after_a_rotation_the_new_key_counts_and_the_old_one_does_not_and_junk_asks_for_nothing() {
    let provider = Provider::start(1).await;
    let key_set = Provider::key_set(1).to_string();
    let api = Api::with_parameters(&[
        ("OidcIssuer", &provider.issuer),
        ("OidcAudience", "bucket-api"),
        ("OidcJwks", &key_set),
    ])
    .await;
    let comes = async |token: String| api.bearer(&token).get("/api/users/isLogged").await;

    comes(provider.token(1, "1")).await.ok();
    assert_eq!(provider.asked.load(Ordering::Relaxed), 0, "a configured set is not fetched");

    *provider.key.lock().unwrap() = 2;
    let start = Instant::now();
    // The first token of the new key has the set fetched.
    comes(provider.token(2, "2")).await.ok();
    comes(provider.token(1, "1")).await.is_problem(401, INVALID);
    comes(provider.token(1, "2")).await.is_problem(401, INVALID);
    // Once a minute at most, however slow the machine is.
    let is_bounded = || {
        provider.asked.load(Ordering::Relaxed) <= 1 + usize::try_from(start.elapsed().as_secs() / 60).unwrap()
    };
    assert!(is_bounded());

    for number in 0..30 {
        comes(provider.token(9, &format!("junk-{number}"))).await.is_problem(401, INVALID);
    }
    comes(provider.token(2, "2")).await.ok();
    assert!(is_bounded());
    assert_eq!(api.stack.instances_started("is_logged"), 1);
}
