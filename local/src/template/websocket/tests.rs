use crate::template::{Source, Template, TemplateError};

use super::*;

const TEMPLATE: &str = r#"
Parameters:
  StageName: { Type: String, Default: agents }
Conditions:
  Never: !Equals [a, b]
Resources:
  HttpApi: { Type: AWS::Serverless::HttpApi }
  HttpStage: { Type: AWS::ApiGatewayV2::Stage, Properties: { ApiId: !Ref HttpApi, StageName: $default } }
  AgentConnectFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: target/lambda/agent_connect/
      Environment: { Variables: { URL: !Sub "wss://${AgentApi}.execute-api.${AWS::Region}.${AWS::URLSuffix}/${AgentStage}" } }
  AgentDisconnectFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: target/lambda/agent_disconnect/
  AgentApi:
    Type: AWS::ApiGatewayV2::Api
    Properties: { Name: a, ProtocolType: WEBSOCKET, RouteSelectionExpression: $request.body.action }
  Connect:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref AgentApi
      IntegrationType: AWS_PROXY
      IntegrationMethod: POST
      IntegrationUri: !Sub arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${AgentConnectFunction.Arn}/invocations
  Disconnect:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref AgentApi
      IntegrationType: AWS_PROXY
      TimeoutInMillis: 5000
      IntegrationUri: !Sub arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${AgentDisconnectFunction.Arn}/invocations
  Nothing:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref AgentApi
      IntegrationType: MOCK
      RequestTemplates: { $default: '{ "statusCode": 200 }' }
  ConnectRoute:
    Type: AWS::ApiGatewayV2::Route
    Properties: { ApiId: !Ref AgentApi, RouteKey: $connect, AuthorizationType: NONE, Target: !Join ["/", [integrations, !Ref Connect]] }
  DisconnectRoute:
    Type: AWS::ApiGatewayV2::Route
    Properties: { ApiId: !Ref AgentApi, RouteKey: $disconnect, Target: !Sub "integrations/${Disconnect}" }
  DefaultRoute:
    Type: AWS::ApiGatewayV2::Route
    Properties: { ApiId: !Ref AgentApi, RouteKey: $default, Target: !Sub "integrations/${Nothing}" }
  NoRoute:
    Type: AWS::ApiGatewayV2::Route
    Condition: Never
    Properties: { ApiId: !Ref AgentApi, RouteKey: custom, Target: nowhere }
  AgentStage:
    Type: AWS::ApiGatewayV2::Stage
    Properties:
      ApiId: !Ref AgentApi
      StageName: !Ref StageName
      AutoDeploy: true
      DefaultRouteSettings: { ThrottlingBurstLimit: 100, ThrottlingRateLimit: 50 }
  ConnectPermission:
    Type: AWS::Lambda::Permission
    Properties:
      FunctionName: !Ref AgentConnectFunction
      Action: lambda:InvokeFunction
      Principal: apigateway.amazonaws.com
      SourceArn: !Sub arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${AgentApi}/*/$connect
  DisconnectPermission:
    Type: AWS::Lambda::Permission
    Properties:
      FunctionName: !GetAtt AgentDisconnectFunction.Arn
      Action: lambda:InvokeFunction
      Principal: apigateway.amazonaws.com
      SourceAccount: !Ref AWS::AccountId
"#;

fn evaluate(text: &str) -> Result<Template, TemplateError> {
    Source::parse(text)?.evaluate(&BTreeMap::new())
}

/// The API of the template with `old` replaced, which must be there.
fn with(old: &str, new: &str) -> Result<Option<WebSocketApi>, TemplateError> {
    assert!(TEMPLATE.contains(old), "{old}");
    Ok(evaluate(&TEMPLATE.replace(old, new))?.websocket)
}

fn api() -> WebSocketApi {
    WebSocketApi {
        id: "AgentApi".to_owned(),
        stage: "agents".to_owned(),
        connect: Some(Integration { function: "agent_connect".to_owned(), timeout: Duration::from_secs(29) }),
        disconnect: Some(Integration {
            function: "agent_disconnect".to_owned(),
            timeout: Duration::from_secs(5),
        }),
        takes_messages: true,
    }
}

#[test]
fn an_api_is_read_with_its_stage_and_what_stands_behind_its_routes() {
    let template = evaluate(TEMPLATE).unwrap();
    assert_eq!(template.websocket, Some(api()));
    assert_eq!(api().path(), "/agents");
    // Functions without an event of their own are functions all the same.
    let names: Vec<_> = template.functions.iter().map(|function| &*function.name).collect();
    assert_eq!(names, ["agent_connect", "agent_disconnect"]);
    let url = "wss://AgentApi.execute-api.us-east-1.amazonaws.com/agents";
    assert_eq!(template.functions[0].environment["URL"], url);
}

#[test]
fn a_template_without_an_api_has_none_whatever_else_is_in_it() {
    assert_eq!(with("Type: AWS::ApiGatewayV2::Api", "Type: AWS::Serverless::Api").unwrap(), None);
    let never = with("Type: AWS::ApiGatewayV2::Api", "Type: AWS::ApiGatewayV2::Api\n    Condition: Never");
    assert_eq!(never.unwrap(), None);
}

#[test]
fn a_route_that_is_not_there_is_nobody_to_ask_or_tell() {
    let gone = "Condition: Never\n    Type: AWS::ApiGatewayV2::Route\n    Properties: { ApiId: !Ref AgentApi, RouteKey";
    let kept = "Type: AWS::ApiGatewayV2::Route\n    Properties: { ApiId: !Ref AgentApi, RouteKey";
    let without = |key: &str| with(&format!("{kept}: {key}"), &format!("{gone}: {key}")).unwrap().unwrap();
    assert_eq!(without("$connect"), WebSocketApi { connect: None, ..api() });
    assert_eq!(without("$disconnect"), WebSocketApi { disconnect: None, ..api() });
    assert_eq!(without("$default"), WebSocketApi { takes_messages: false, ..api() });
    // A mock is told in vain.
    let mocked = with("integrations/${Disconnect}", "integrations/${Nothing}").unwrap();
    assert_eq!(mocked, Some(WebSocketApi { disconnect: None, ..api() }));
}

#[test]
fn a_deployment_serves_a_stage_that_does_not_deploy_itself() {
    let deployed = |depends_on: &str| {
        let deployment = format!(
            "DeploymentId: !Ref Deployment\n  Deployment:\n    Type: AWS::ApiGatewayV2::Deployment\n    DependsOn: \
             {depends_on}\n    Properties:\n      ApiId: !Ref AgentApi"
        );
        with(
            "AutoDeploy: true\n      DefaultRouteSettings: { ThrottlingBurstLimit: 100, ThrottlingRateLimit: 50 }",
            &deployment,
        )
    };
    assert_eq!(deployed("[ConnectRoute, DisconnectRoute, DefaultRoute]").unwrap(), Some(api()));
    for (depends_on, missing) in [
        ("[ConnectRoute, DefaultRoute]", "DisconnectRoute"),
        ("ConnectRoute", "DefaultRoute"),
        ("[]", "ConnectRoute"),
    ] {
        let error = deployed(depends_on).unwrap_err().to_string();
        assert!(error.contains("Resources.Deployment.DependsOn"), "{error}");
        assert!(error.contains(missing), "{error}");
    }
}

#[test]
fn a_permission_is_that_of_aws() {
    let source = "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${AgentApi}/*/$connect";
    let sourced = |arn: &str| with(source, arn);
    for arn in [
        "arn:aws:execute-api:${AWS::Region}:${AWS::AccountId}:${AgentApi}/agents/$connect",
        "arn:aws:execute-api:${AWS::Region}:${AWS::AccountId}:${AgentApi}/${AgentStage}/$?onnect",
        "arn:aws:execute-api:*:*:${AgentApi}/*",
        "'*'",
    ] {
        assert_eq!(sourced(arn).unwrap(), Some(api()), "{arn}");
    }
    let refused = |error: TemplateError| {
        let error = error.to_string();
        assert!(error.starts_with("the template's `Resources.ConnectRoute.Properties.Target`"), "{error}");
        assert!(error.contains("API Gateway may not invoke `AgentConnectFunction`"), "{error}");
    };
    for arn in [
        "arn:aws:execute-api:${AWS::Region}:${AWS::AccountId}:${AgentApi}/*/$disconnect",
        "arn:aws:execute-api:${AWS::Region}:${AWS::AccountId}:${HttpApi}/*/$connect",
        "arn:aws:execute-api:${AWS::Region}:${AWS::AccountId}:${AgentApi}/prod/$connect",
        "arn:aws:execute-api:${AWS::Region}:${AWS::AccountId}:${AgentApi}",
    ] {
        refused(sourced(arn).unwrap_err());
    }
    refused(
        with("FunctionName: !Ref AgentConnectFunction", "FunctionName: !Ref AgentDisconnectFunction")
            .unwrap_err(),
    );
    let old = "Action: lambda:InvokeFunction\n      Principal: apigateway.amazonaws.com\n      SourceArn";
    for new in [
        "Action: lambda:GetFunction\n      Principal: apigateway.amazonaws.com\n      SourceArn",
        "Action: lambda:InvokeFunction\n      Principal: events.amazonaws.com\n      SourceArn",
        "Action: lambda:InvokeFunction\n      Principal: apigateway.amazonaws.com\n      SourceAccount: 1\n      SourceArn",
    ] {
        refused(with(old, new).unwrap_err());
    }
}

#[test]
fn stars_and_question_marks_stand_for_what_they_do_on_aws() {
    for (pattern, text, expected) in [
        ("", "", true),
        ("*", "", true),
        ("a", "", false),
        ("a*c", "abbc", true),
        ("a*c", "ac", true),
        ("a*c", "acb", false),
        ("*b*b*", "abab", true),
        ("*b*b*b", "abab", false),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("abc", "abcd", false),
        ("a*", "b", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}

/// Each is a text of the template, what stands there instead, and the place of the error that it makes.
fn refused_at(cases: &[(&str, &str, &str)]) {
    for (old, new, place) in cases {
        let error = with(old, new).unwrap_err();
        let expected = format!("Resources.{place}");
        assert!(
            matches!(&error, TemplateError::Property { path, .. } if *path == expected),
            "{new}: expected {expected}\n{error}"
        );
    }
}

#[test]
fn what_the_local_stack_cannot_play_of_an_api_and_its_stage_is_refused_with_its_place() {
    let api = "Name: a, ProtocolType: WEBSOCKET";
    let stage = "StageName: !Ref StageName\n      AutoDeploy: true";
    refused_at(&[
        ("WEBSOCKET", "HTTP", "AgentApi.Properties.ProtocolType"),
        (
            ", RouteSelectionExpression: $request.body.action",
            "",
            "AgentApi.Properties.RouteSelectionExpression",
        ),
        (api, &format!("{api}, Body: {{}}"), "AgentApi.Properties.Body"),
        (
            api,
            &format!("{api}, DisableExecuteApiEndpoint: true"),
            "AgentApi.Properties.DisableExecuteApiEndpoint",
        ),
        (
            "HttpApi: { Type: AWS::Serverless::HttpApi }",
            "HttpApi: { Type: AWS::ApiGatewayV2::Api, Properties: { ProtocolType: WEBSOCKET } }",
            "AgentApi",
        ),
        // Stages.
        ("Type: AWS::ApiGatewayV2::Stage\n", "Type: AWS::ApiGatewayV2::Other\n", "AgentApi"),
        (
            "NoRoute:",
            "Second: { Type: AWS::ApiGatewayV2::Stage, Properties: { ApiId: !Ref AgentApi, StageName: b } }\n  NoRoute:",
            "AgentStage",
        ),
        (stage, "StageName: $default\n      AutoDeploy: true", "AgentStage.Properties.StageName"),
        (stage, "StageName: a/b\n      AutoDeploy: true", "AgentStage.Properties.StageName"),
        (stage, "AutoDeploy: true", "AgentStage.Properties.StageName"),
        (stage, "StageName: agents", "AgentStage.Properties.AutoDeploy"),
        (stage, "StageName: agents\n      AutoDeploy: false", "AgentStage.Properties.AutoDeploy"),
        (
            stage,
            "StageName: agents\n      DeploymentId: !Ref HttpStage",
            "AgentStage.Properties.DeploymentId",
        ),
        (
            stage,
            &format!("{stage}\n      StageVariables: {{ a: b }}"),
            "AgentStage.Properties.StageVariables",
        ),
        // What a stage's name is made of cannot be another's.
        (stage, "StageName: !Ref HttpStage\n      AutoDeploy: true", "AgentStage.Properties.StageName"),
    ]);
}

#[test]
fn what_the_local_stack_cannot_play_of_integrations_and_routes_is_refused_with_its_place() {
    let route = "RouteKey: $connect, AuthorizationType: NONE";
    let proxy = "IntegrationType: AWS_PROXY\n      IntegrationMethod: POST";
    let invoked = "functions/${AgentConnectFunction.Arn}/invocations";
    refused_at(&[
        // Integrations.
        ("IntegrationType: MOCK", "IntegrationType: HTTP_PROXY", "Nothing.Properties.IntegrationType"),
        ("IntegrationType: MOCK", "Description: none", "Nothing.Properties.IntegrationType"),
        ("'{ \"statusCode\": 200 }'", "'{ \"statusCode\": 500 }'", "Nothing.Properties.RequestTemplates"),
        (
            "RequestTemplates: { $default: '{ \"statusCode\": 200 }' }",
            "Description: none",
            "Nothing.Properties.RequestTemplates",
        ),
        (invoked, "functions/${AgentApi}/invocations", "Connect.Properties.IntegrationUri"),
        (
            invoked,
            "functions/arn:aws:lambda:us-east-1:000000000000:function:Other/invocations",
            "Connect.Properties.IntegrationUri",
        ),
        (invoked, "functions/${AgentConnectFunction.Arn}", "Connect.Properties.IntegrationUri"),
        (invoked, "functions/${AgentConnectFunction.Name}/invocations", "Connect.Properties.IntegrationUri"),
        (
            proxy,
            "IntegrationType: AWS_PROXY\n      IntegrationMethod: GET",
            "Connect.Properties.IntegrationMethod",
        ),
        (proxy, &format!("{proxy}\n      CredentialsArn: role"), "Connect.Properties.CredentialsArn"),
        (proxy, &format!("{proxy}\n      ConnectionType: VPC_LINK"), "Connect.Properties.ConnectionType"),
        (
            proxy,
            &format!("{proxy}\n      PayloadFormatVersion: '2.0'"),
            "Connect.Properties.PayloadFormatVersion",
        ),
        (
            proxy,
            &format!("{proxy}\n      RequestParameters: {{ a: b }}"),
            "Connect.Properties.RequestParameters",
        ),
        ("TimeoutInMillis: 5000", "TimeoutInMillis: 30000", "Disconnect.Properties.TimeoutInMillis"),
        // Routes.
        ("ApiId: !Ref AgentApi, RouteKey: $default", "RouteKey: $default", "DefaultRoute.Properties.ApiId"),
        ("RouteKey: $default", "OperationName: a", "DefaultRoute.Properties.RouteKey"),
        ("RouteKey: $default", "RouteKey: custom", "DefaultRoute.Properties.RouteKey"),
        ("RouteKey: $default", "RouteKey: $connect", "DefaultRoute.Properties.RouteKey"),
        ("integrations/${Nothing}", "${Nothing}", "DefaultRoute.Properties.Target"),
        ("integrations/${Nothing}", "integrations/${AgentApi}", "DefaultRoute.Properties.Target"),
        (", Target: !Sub \"integrations/${Nothing}\"", "", "DefaultRoute.Properties.Target"),
        ("[integrations, !Ref Connect]", "[integrations, !Ref Nothing]", "ConnectRoute.Properties.Target"),
        (
            route,
            "RouteKey: $connect, AuthorizationType: AWS_IAM",
            "ConnectRoute.Properties.AuthorizationType",
        ),
        (route, &format!("{route}, ApiKeyRequired: true"), "ConnectRoute.Properties.ApiKeyRequired"),
        (route, &format!("{route}, AuthorizerId: a"), "ConnectRoute.Properties.AuthorizerId"),
        (
            route,
            &format!("{route}, RouteResponseSelectionExpression: a"),
            "ConnectRoute.Properties.RouteResponseSelectionExpression",
        ),
        (
            route,
            &format!("{route}, RequestParameters: {{ a: b }}"),
            "ConnectRoute.Properties.RequestParameters",
        ),
    ]);
}

#[test]
fn a_function_behind_the_default_route_is_refused_in_plain_words() {
    // It may be invoked, so nothing else is wrong.
    let error = with("integrations/${Nothing}", "integrations/${Disconnect}").unwrap_err().to_string();
    assert!(error.contains("`Resources.DefaultRoute.Properties.Target`"), "{error}");
    assert!(
        error.ends_with("the local stack plays no function behind `$default`: give it a MOCK integration"),
        "{error}"
    );
}

#[test]
fn an_http_route_where_the_websocket_api_is_served_is_refused() {
    let routed = |path: &str| {
        let events = format!(
            "CodeUri: target/lambda/agent_disconnect/\n      Events: {{ E: {{ Type: HttpApi, Properties: {{ Method: POST, \
             Path: \"{path}\" }} }} }}"
        );
        with("CodeUri: target/lambda/agent_disconnect/", &events)
    };
    let error = routed("/agents").unwrap_err().to_string();
    assert!(error.contains("`Resources.AgentStage.Properties.StageName`"), "{error}");
    assert!(error.contains("`AgentDisconnectFunction` has the route `POST /agents`"), "{error}");
    for path in ["/agents/{id}", "/{proxy+}", "/agent", "/a/agents"] {
        assert_eq!(routed(path).unwrap(), Some(api()), "{path}");
    }
}
