//! What stands in front of the S3 library: limits, and rules of SigV4 that it leaves to its user.
//!
//! Only SigV4 is spoken (version 2 and browser forms are refused), for this region, with `host` and every `x-amz-` header signed; a
//! presigned URL is valid for seven days at most. No signature is judged here. Pure: a request's head in, a verdict out.

use super::error::refuse;
use super::limits::{HEADER_BYTES, HEADERS, PRESIGNED_SECONDS, PUT_BYTES, TARGET_BYTES, XML_BYTES};
use http::request::Parts;
use http::{HeaderMap, Method};
use s3s::{S3Error, S3ErrorCode, S3Result};

/// Checks a request's head.
pub(crate) fn check(head: &Parts, region: &str) -> S3Result<()> {
    check_size(head)?;
    check_body_length(head)?;
    let is_form = head.headers.get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"multipart/form-data"));
    if is_form && head.method == Method::POST {
        return Err(refuse(S3ErrorCode::NotImplemented, "Uploads by browser forms are not implemented."));
    }
    let query = head.uri.query().unwrap_or_default();
    match (query_value(query, "X-Amz-Signature"), head.headers.get("authorization")) {
        (Some(_), Some(_)) => Err(refuse(
            S3ErrorCode::InvalidArgument,
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter or the Authorization header should be specified",
        )),
        (Some(_), None) => check_presigned(query, head, region),
        (None, Some(value)) => check_authorization(value.to_str().unwrap_or_default(), head, region),
        (None, None) if query_value(query, "Signature").is_some() => Err(only_v4()),
        (None, None) => Err(refuse(S3ErrorCode::AccessDenied, "Access Denied: the request is not signed.")),
    }
}

fn check_size(head: &Parts) -> S3Result<()> {
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > HEADER_BYTES || head.headers.len() > HEADERS {
        let message = format!(
            "Your metadata and headers exceed the limit of {HEADER_BYTES} bytes or {HEADERS} headers: {bytes} bytes in {}",
            head.headers.len()
        );
        let mut error = refuse(S3ErrorCode::RequestHeaderSectionTooLarge, message);
        error.set_status_code(http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        return Err(error);
    }
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > TARGET_BYTES {
        return Err(refuse(S3ErrorCode::InvalidURI, format!("The request target has {target} bytes, at most {TARGET_BYTES} are accepted")));
    }
    Ok(())
}

fn check_body_length(head: &Parts) -> S3Result<()> {
    let limit = if head.method == Method::PUT { PUT_BYTES } else { XML_BYTES as u64 };
    for name in ["content-length", "x-amz-decoded-content-length"] {
        let Some(value) = head.headers.get(name) else { continue };
        let length = value.to_str().ok().and_then(|value| value.parse::<u64>().ok());
        let length = length.ok_or_else(|| refuse(S3ErrorCode::InvalidArgument, format!("{name} is not a length")))?;
        // Chunk framing makes the encoded body a little longer than the object in it.
        if length > limit + limit / 64 {
            let mut error = refuse(
                S3ErrorCode::EntityTooLarge,
                format!("Your proposed upload exceeds the maximum allowed size: {length} bytes, at most {limit}"),
            );
            error.set_status_code(http::StatusCode::BAD_REQUEST);
            return Err(error);
        }
    }
    Ok(())
}

fn only_v4() -> S3Error {
    refuse(S3ErrorCode::InvalidRequest, "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
}

fn check_authorization(value: &str, head: &Parts, region: &str) -> S3Result<()> {
    let fields = value.strip_prefix("AWS4-HMAC-SHA256").ok_or_else(only_v4)?;
    let field = |name: &str| fields.split(',').map(str::trim).find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let malformed =
        |what: &str| refuse(S3ErrorCode::AuthorizationHeaderMalformed, format!("The authorization header is malformed; {what}."));
    check_scope(field("Credential").ok_or_else(|| malformed("it has no Credential"))?, region)?;
    let signed = field("SignedHeaders").ok_or_else(|| malformed("it has no SignedHeaders"))?;
    check_signed_headers(signed, &head.headers)
}

fn check_presigned(query: &str, head: &Parts, region: &str) -> S3Result<()> {
    let value = |name: &str| query_value(query, name).map(decode);
    let bad = |what: String| refuse(S3ErrorCode::AuthorizationQueryParametersError, what);
    let expires = value("X-Amz-Expires").and_then(|value| value.parse::<u64>().ok());
    let expires = expires.ok_or_else(|| bad("X-Amz-Expires should be a number".into()))?;
    if expires == 0 || expires > PRESIGNED_SECONDS {
        return Err(bad(format!(
            "X-Amz-Expires must be from 1 second to a week (in seconds); that is, it must be at most {PRESIGNED_SECONDS} seconds"
        )));
    }
    check_scope(&value("X-Amz-Credential").ok_or_else(|| bad("X-Amz-Credential is missing".into()))?, region)?;
    let signed = value("X-Amz-SignedHeaders").ok_or_else(|| bad("X-Amz-SignedHeaders is missing".into()))?;
    check_signed_headers(&signed, &head.headers)
}

/// `<access key>/<date>/<region>/<service>/aws4_request`
fn check_scope(credential: &str, region: &str) -> S3Result<()> {
    let mut fields = credential.rsplit('/');
    let (end, service, found) = (fields.next(), fields.next(), fields.next());
    let malformed =
        |what: String| refuse(S3ErrorCode::AuthorizationHeaderMalformed, format!("The authorization header is malformed; {what}"));
    if end != Some("aws4_request") || service != Some("s3") {
        return Err(malformed("the credential scope must end with s3/aws4_request".into()));
    }
    match found {
        Some(found) if found == region => Ok(()),
        found => Err(malformed(format!("the region '{}' is wrong; expecting '{region}'", found.unwrap_or_default()))),
    }
}

fn check_signed_headers(signed: &str, headers: &HeaderMap) -> S3Result<()> {
    let is_signed = |name: &str| signed.split(';').any(|signed| signed.eq_ignore_ascii_case(name));
    let unsigned =
        |name: &str| refuse(S3ErrorCode::AccessDenied, format!("There were headers present in the request which were not signed: {name}"));
    if !is_signed("host") {
        return Err(unsigned("host"));
    }
    if let Some(missing) = signed.split(';').find(|name| !headers.contains_key(*name)) {
        return Err(refuse(S3ErrorCode::SignatureDoesNotMatch, format!("A signed header is not in the request: {missing}")));
    }
    match headers.keys().find(|name| name.as_str().starts_with("x-amz-") && !is_signed(name.as_str())) {
        // It signs itself: it is checked against the body that it describes.
        Some(name) if name.as_str() == "x-amz-content-sha256" => Ok(()),
        Some(name) => Err(unsigned(name.as_str())),
        None => Ok(()),
    }
}

fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

fn decode(value: &str) -> String {
    percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: &str = "AK/20261121/us-east-1/s3/aws4_request";

    fn verdict(method: &str, uri: &str, headers: &[(&str, &str)]) -> String {
        let mut request = http::Request::builder().method(method).uri(uri).header("host", "h");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("well formed").into_parts();
        check(&head, "us-east-1").err().map_or("ok".into(), |e| e.code().as_str().to_owned())
    }

    fn signed(scope: &str, names: &str) -> String {
        format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature=00")
    }

    #[test]
    fn signed_requests() {
        let with = |scope: &str, names: &str, more: &[(&str, &str)]| {
            let value = signed(scope, names);
            verdict("GET", "/b/k", &[&[("authorization", value.as_str())], more].concat())
        };
        assert_eq!(with(SCOPE, "host", &[]), "ok");
        assert_eq!(with(SCOPE, "host;x-amz-date", &[("x-amz-date", "d")]), "ok");
        assert_eq!(with(&SCOPE.replace("us-east-1", "mars-1"), "host", &[]), "AuthorizationHeaderMalformed");
        assert_eq!(with(&SCOPE.replace("/s3/", "/sts/"), "host", &[]), "AuthorizationHeaderMalformed");
        assert_eq!(with(SCOPE, "x-amz-date", &[("x-amz-date", "d")]), "AccessDenied");
        assert_eq!(with(SCOPE, "host", &[("x-amz-copy-source", "b/k")]), "AccessDenied");
        assert_eq!(with(SCOPE, "host;range", &[]), "SignatureDoesNotMatch");
    }

    #[test]
    fn presigned_urls() {
        let url = |expires: &str| {
            let scope = SCOPE.replace('/', "%2F");
            format!(
                "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={scope}&X-Amz-Expires={expires}&X-Amz-SignedHeaders=host&X-Amz-Signature=00"
            )
        };
        assert_eq!(verdict("GET", &url("604800"), &[]), "ok");
        for expires in ["604801", "0", "-1", "x", ""] {
            assert_eq!(verdict("GET", &url(expires), &[]), "AuthorizationQueryParametersError", "{expires}");
        }
        let value = signed(SCOPE, "host");
        assert_eq!(verdict("GET", &url("60"), &[("authorization", value.as_str())]), "InvalidArgument");
    }

    #[test]
    fn other_mechanisms_and_none() {
        assert_eq!(verdict("GET", "/b/k", &[]), "AccessDenied");
        assert_eq!(verdict("GET", "/b/k", &[("authorization", "AWS AK:sig")]), "InvalidRequest");
        assert_eq!(verdict("GET", "/b/k?AWSAccessKeyId=AK&Signature=s&Expires=1", &[]), "InvalidRequest");
        assert_eq!(verdict("POST", "/b", &[("content-type", "multipart/form-data; boundary=x")]), "NotImplemented");
    }

    #[test]
    fn oversized_requests() {
        let value = signed(SCOPE, "host");
        let auth = ("authorization", value.as_str());
        assert_eq!(verdict("GET", "/b/k", &[auth, ("x-long", &"x".repeat(HEADER_BYTES))]), "RequestHeaderSectionTooLarge");
        assert_eq!(verdict("PUT", "/b/k", &[auth, ("content-length", "6000000000")]), "EntityTooLarge");
        assert_eq!(verdict("POST", "/b?delete", &[auth, ("content-length", "6000000")]), "EntityTooLarge");
        assert_eq!(verdict("PUT", "/b/k", &[auth, ("content-length", "minus")]), "InvalidArgument");
        assert_eq!(verdict("GET", &format!("/b/{}", "k".repeat(TARGET_BYTES)), &[auth]), "InvalidURI");
    }
}
