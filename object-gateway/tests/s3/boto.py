"""The S3 door, end to end, with boto3 as it comes (aws-chunked bodies, CRC trailers) and with raw HTTP for what no SDK would send."""

import base64
import datetime
import hashlib
import hmac
import http.client
import io
import os
import time
import urllib.parse
import urllib.request
import uuid
import zlib

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from endpoint import arguments, equal, run

ARGS = arguments(__doc__)
MIB = 1 << 20
BUCKET = f"e2e-{uuid.uuid4().hex[:12]}"


def client(access_key=ARGS.access_key, secret_key=ARGS.secret_key, region=ARGS.region, **config):
    options = Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 3}, **config)
    return boto3.client("s3", endpoint_url=ARGS.endpoint, region_name=region, aws_access_key_id=access_key, aws_secret_access_key=secret_key, config=options)


S3 = client()


def refused(code, call, status=None):
    try:
        call()
    except ClientError as error:
        found = error.response["Error"]["Code"]
        if found not in (code if isinstance(code, tuple) else (code,)):
            raise AssertionError(f"refused with {found} ({error}), should be {code}") from error
        if status:
            equal(error.response["ResponseMetadata"]["HTTPStatusCode"], status, code)
        return error.response
    raise AssertionError(f"should have been refused with {code}")


def put(key, body, **more):
    return S3.put_object(Bucket=BUCKET, Key=key, Body=body, **more)


def get(key, **more):
    return S3.get_object(Bucket=BUCKET, Key=key, **more)["Body"].read()


def absent(key):
    refused("404", lambda: S3.head_object(Bucket=BUCKET, Key=key))


# --- raw requests -----------------------------------------------------------------------------------------------------------------


def signed(method, path, headers=None, payload_hash="UNSIGNED-PAYLOAD", query=""):
    """Headers of a SigV4 request, signed by hand, so that the body can be anything."""
    now = datetime.datetime.now(datetime.timezone.utc)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    host = urllib.parse.urlsplit(ARGS.endpoint).netloc
    headers = {"host": host, "x-amz-date": stamp, "x-amz-content-sha256": payload_hash, **{k.lower(): v for k, v in (headers or {}).items()}}
    names = sorted(name for name in headers if name != "content-length")
    canonical = "\n".join([method, urllib.parse.quote(path), query, "".join(f"{n}:{headers[n].strip()}\n" for n in names), ";".join(names), payload_hash])
    scope = f"{day}/{ARGS.region}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + ARGS.secret_key).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={ARGS.access_key}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return headers


def raw(method, target, headers, body=b"", half_close=False):
    """Sends exactly this. Gives status and body; status 0 if the server closed the connection."""
    address = urllib.parse.urlsplit(ARGS.endpoint)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    try:
        connection.putrequest(method, target, skip_host="host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(body)
        if half_close:
            connection.sock.shutdown(1)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (http.client.HTTPException, ConnectionError):
        return 0, ""
    finally:
        connection.close()


def raw_refused(code, answer, status=400):
    found, body = answer
    if found != status or f"<Code>{code}</Code>" not in body:
        raise AssertionError(f"answered {found} {body}, should be {status} {code}")


def chunked(*pieces, trailer=""):
    out = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return out + f"0\r\n{trailer}\r\n".encode()


def crc32(body):
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


# --- tests ------------------------------------------------------------------------------------------------------------------------


def buckets():
    S3.create_bucket(Bucket=BUCKET)
    refused("BucketAlreadyOwnedByYou", lambda: S3.create_bucket(Bucket=BUCKET), 409)
    S3.head_bucket(Bucket=BUCKET)
    refused("404", lambda: S3.head_bucket(Bucket=f"{BUCKET}-none"))
    assert BUCKET in [bucket["Name"] for bucket in S3.list_buckets()["Buckets"]], "the bucket is not listed"
    location = S3.get_bucket_location(Bucket=BUCKET).get("LocationConstraint")
    equal(location, None if ARGS.region == "us-east-1" else ARGS.region, "location")
    status, body = raw("PUT", "/UPPER_case", signed("PUT", "/UPPER_case", {"content-length": "0"}))
    equal((status, "InvalidBucketName" in body), (400, True), "bucket name")
    refused("NoSuchBucket", lambda: S3.put_object(Bucket=f"{BUCKET}-none", Key="k", Body=b"x"), 404)


def put_and_get_of_all_sizes():
    for size in [0, 1, 1000, MIB - 1, MIB, MIB + 1, 4 * MIB + 7]:
        body = os.urandom(size)
        answer = put("sizes", body)
        equal(answer["ETag"], f'"{hashlib.md5(body).hexdigest()}"', "etag")
        equal(get("sizes") == body, True, f"{size} bytes")
        equal(S3.head_object(Bucket=BUCKET, Key="sizes")["ContentLength"], size, "length")


def streamed_bodies_and_all_checksums():
    body = os.urandom(3 * MIB + 11)
    for algorithm in ["CRC32", "SHA1", "SHA256"]:
        answer = put(algorithm, io.BytesIO(body), ChecksumAlgorithm=algorithm)
        told = S3.get_object(Bucket=BUCKET, Key=algorithm, ChecksumMode="ENABLED")
        equal(told["Body"].read() == body, True, algorithm)
        equal(told[f"Checksum{algorithm}"], answer[f"Checksum{algorithm}"], algorithm)
    equal(S3.head_object(Bucket=BUCKET, Key="CRC32", ChecksumMode="ENABLED")["ChecksumCRC32"], crc32(body), "crc32")
    for header, value in [("x-amz-checksum-crc32c", "yZRlqg=="), ("x-amz-checksum-crc64nvme", "jSnVw/bqjr4=")]:
        headers = signed("PUT", f"/{BUCKET}/raw-sum", {"content-length": "11", header: value})
        status, text = raw("PUT", f"/{BUCKET}/raw-sum", headers, b"hello world")
        assert status == 200, f"{header}: {status} {text}"


def metadata_and_headers():
    put("meta", b"x", ContentType="text/plain", CacheControl="no-cache", ContentDisposition="inline", ContentLanguage="de", Metadata={"colour": "blue", "n": "1"})
    head = S3.head_object(Bucket=BUCKET, Key="meta")
    equal((head["ContentType"], head["CacheControl"], head["ContentDisposition"], head["ContentLanguage"]), ("text/plain", "no-cache", "inline", "de"), "headers")
    equal(head["Metadata"], {"colour": "blue", "n": "1"}, "metadata")
    told = S3.get_object(Bucket=BUCKET, Key="meta", ResponseContentType="image/png", ResponseCacheControl="max-age=1")
    equal((told["ContentType"], told["CacheControl"]), ("image/png", "max-age=1"), "overrides")
    refused("MetadataTooLarge", lambda: put("meta", b"x", Metadata={"big": "x" * 3000}), 400)


def keys_of_every_kind():
    for key in ["a b", "ü/ä", "a+b&c=d", "a//b", "../up", ".", "x" * 1024, "q?x#y", "%41", "tab\tkey"]:
        put(key, key.encode())
        equal(get(key), key.encode(), key)
    refused("KeyTooLongError", lambda: put("x" * 1025, b""), 400)


def ranges():
    body = os.urandom(2 * MIB + 100)
    put("range", body)
    for header, wanted in [("bytes=0-0", body[:1]), ("bytes=5-9", body[5:10]), (f"bytes={MIB - 3}-{MIB + 3}", body[MIB - 3 : MIB + 4]),
                           ("bytes=2097152-", body[2 * MIB :]), ("bytes=-7", body[-7:]), ("bytes=0-99999999", body)]:
        answer = S3.get_object(Bucket=BUCKET, Key="range", Range=header)
        equal(answer["ResponseMetadata"]["HTTPStatusCode"], 206, header)
        equal(answer["Body"].read() == wanted, True, header)
    refused("InvalidRange", lambda: get("range", Range="bytes=99999999-"), 416)


def conditional_reads():
    etag = put("cond", b"one")["ETag"]
    modified = S3.head_object(Bucket=BUCKET, Key="cond")["LastModified"]
    equal(get("cond", IfMatch=etag), b"one", "If-Match")
    refused("PreconditionFailed", lambda: get("cond", IfMatch='"other"'), 412)
    refused(("304", "NotModified"), lambda: get("cond", IfNoneMatch=etag), 304)
    refused(("304", "NotModified"), lambda: get("cond", IfModifiedSince=modified + datetime.timedelta(seconds=5)), 304)
    refused("PreconditionFailed", lambda: get("cond", IfUnmodifiedSince=modified - datetime.timedelta(days=1)), 412)


def conditional_writes():
    key = uuid.uuid4().hex
    etag = put(key, b"one", IfNoneMatch="*")["ETag"]
    refused("PreconditionFailed", lambda: put(key, b"two", IfNoneMatch="*"), 412)
    refused("PreconditionFailed", lambda: put(key, b"two", IfMatch='"0123"'), 412)
    equal(get(key), b"one", "unchanged")
    put(key, b"two", IfMatch=etag)
    equal(get(key), b"two", "changed")


def deletes():
    put("gone", b"x")
    S3.delete_object(Bucket=BUCKET, Key="gone")
    S3.delete_object(Bucket=BUCKET, Key="gone")
    refused("NoSuchKey", lambda: get("gone"), 404)
    keys = [f"many/{i}" for i in range(10)]
    for key in keys:
        put(key, b"x")
    answer = S3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys + ["many/none"]]})
    equal(sorted(entry["Key"] for entry in answer["Deleted"]), sorted(keys + ["many/none"]), "deleted")
    equal(S3.list_objects_v2(Bucket=BUCKET, Prefix="many/")["KeyCount"], 0, "left")
    body = b"<Delete><Object><Key>none</Key></Object><Quiet>true</Quiet></Delete>"
    plain = {"content-length": str(len(body)), "content-type": "application/xml"}
    status, text = raw("POST", f"/{BUCKET}?delete=", signed("POST", f"/{BUCKET}", plain, query="delete="), body)
    equal(status, 200, f"without any digest: {text}")
    wrong = {**plain, "content-md5": base64.b64encode(hashlib.md5(b"other").digest()).decode()}
    raw_refused("BadDigest", raw("POST", f"/{BUCKET}?delete=", signed("POST", f"/{BUCKET}", wrong, query="delete="), body))


def copies():
    etag = put("source", b"copy me", ContentType="text/plain", Metadata={"a": "1"})["ETag"]
    answer = S3.copy_object(Bucket=BUCKET, Key="copy/ü 1", CopySource={"Bucket": BUCKET, "Key": "source"})
    equal(answer["CopyObjectResult"]["ETag"], etag, "etag")
    S3.delete_object(Bucket=BUCKET, Key="source")
    equal(get("copy/ü 1"), b"copy me", "the copy outlives its source")
    equal(S3.head_object(Bucket=BUCKET, Key="copy/ü 1")["Metadata"], {"a": "1"}, "metadata")
    S3.copy_object(Bucket=BUCKET, Key="copy/ü 1", CopySource={"Bucket": BUCKET, "Key": "copy/ü 1"}, MetadataDirective="REPLACE", Metadata={"b": "2"}, ContentType="text/html")
    head = S3.head_object(Bucket=BUCKET, Key="copy/ü 1")
    equal((head["Metadata"], head["ContentType"], head["ETag"]), ({"b": "2"}, "text/html", etag), "replaced")
    refused("NoSuchKey", lambda: S3.copy_object(Bucket=BUCKET, Key="x", CopySource={"Bucket": BUCKET, "Key": "none"}), 404)


def listings():
    keys = sorted(["l/a", "l/b/1", "l/b/2", "l/c d", "l/e+f", "l/g/h/i", "l/z", "l/ü"], key=lambda key: key.encode())
    for key in keys:
        put(key, b"x")
    for version in ["list_objects", "list_objects_v2"]:
        call = getattr(S3, version)
        equal([entry["Key"] for entry in call(Bucket=BUCKET, Prefix="l/")["Contents"]], keys, version)
        answer = call(Bucket=BUCKET, Prefix="l/", Delimiter="/")
        equal([entry["Prefix"] for entry in answer["CommonPrefixes"]], ["l/b/", "l/g/"], version)
        equal([entry["Key"] for entry in answer["Contents"]], ["l/a", "l/c d", "l/e+f", "l/z", "l/ü"], version)
        for size in [1, 2, 3]:
            found = []
            for page in S3.get_paginator(version).paginate(Bucket=BUCKET, Prefix="l/", Delimiter="/", PaginationConfig={"PageSize": size}):
                names = [entry["Key"] for entry in page.get("Contents", [])] + [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
                assert len(names) <= size, f"{version}: {len(names)} in a page of {size}"
                found += names
            equal(sorted(found), sorted(["l/a", "l/b/", "l/c d", "l/e+f", "l/g/", "l/z", "l/ü"]), f"{version} by {size}")
    answer = S3.list_objects_v2(Bucket=BUCKET, Prefix="l/", StartAfter="l/c d")
    equal([entry["Key"] for entry in answer["Contents"]], [key for key in keys if key.encode() > b"l/c d"], "start-after")
    equal(S3.list_objects_v2(Bucket=BUCKET, MaxKeys=0)["KeyCount"], 0, "max-keys 0")
    refused("InvalidArgument", lambda: S3.list_objects_v2(Bucket=BUCKET, ContinuationToken="no token!"), 400)


def multipart():
    parts = [os.urandom(5 * MIB), os.urandom(6 * MIB + 1), os.urandom(17)]
    upload = S3.create_multipart_upload(Bucket=BUCKET, Key="multi", ContentType="text/plain", Metadata={"m": "1"})["UploadId"]
    named = []
    for number, part in enumerate(parts, 1):
        etag = S3.upload_part(Bucket=BUCKET, Key="multi", UploadId=upload, PartNumber=number, Body=part)["ETag"]
        named.append({"PartNumber": number, "ETag": etag})
    absent("multi")
    equal([p["Size"] for p in S3.list_parts(Bucket=BUCKET, Key="multi", UploadId=upload)["Parts"]], [len(p) for p in parts], "parts")
    assert upload in [u["UploadId"] for u in S3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]], "the upload is not listed"
    complete = lambda parts: S3.complete_multipart_upload(Bucket=BUCKET, Key="multi", UploadId=upload, MultipartUpload={"Parts": parts})
    refused("InvalidPartOrder", lambda: complete(named[::-1]), 400)
    refused("InvalidPart", lambda: complete(named[:2] + [{"PartNumber": 3, "ETag": '"00000000000000000000000000000000"'}]), 400)
    refused("EntityTooSmall", complete_small, 400)
    etag = complete(named)["ETag"]
    md5 = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    equal(etag, f'"{md5}-3"', "etag")
    body = b"".join(parts)
    equal(get("multi") == body, True, "bytes")
    equal(get("multi", Range=f"bytes={5 * MIB - 5}-{11 * MIB + 9}") == body[5 * MIB - 5 : 11 * MIB + 10], True, "a range over parts")
    equal(get("multi", PartNumber=3) == parts[2], True, "part 3")
    head = S3.head_object(Bucket=BUCKET, Key="multi")
    equal((head["ContentType"], head["Metadata"]), ("text/plain", {"m": "1"}), "described")
    equal(complete(named)["ETag"], etag, "completed twice")


def complete_small():
    upload = S3.create_multipart_upload(Bucket=BUCKET, Key="small")["UploadId"]
    named = [{"PartNumber": n, "ETag": S3.upload_part(Bucket=BUCKET, Key="small", UploadId=upload, PartNumber=n, Body=b"x")["ETag"]} for n in (1, 2)]
    try:
        S3.complete_multipart_upload(Bucket=BUCKET, Key="small", UploadId=upload, MultipartUpload={"Parts": named})
    finally:
        S3.abort_multipart_upload(Bucket=BUCKET, Key="small", UploadId=upload)
        refused("NoSuchUpload", lambda: S3.list_parts(Bucket=BUCKET, Key="small", UploadId=upload), 404)


def part_copies():
    body = os.urandom(6 * MIB)
    put("part-source", body)
    upload = S3.create_multipart_upload(Bucket=BUCKET, Key="part-copy")["UploadId"]
    source = {"Bucket": BUCKET, "Key": "part-source"}
    first = S3.upload_part_copy(Bucket=BUCKET, Key="part-copy", UploadId=upload, PartNumber=1, CopySource=source)
    second = S3.upload_part_copy(Bucket=BUCKET, Key="part-copy", UploadId=upload, PartNumber=2, CopySource=source, CopySourceRange="bytes=10-19")
    named = [{"PartNumber": n, "ETag": part["CopyPartResult"]["ETag"]} for n, part in ((1, first), (2, second))]
    S3.complete_multipart_upload(Bucket=BUCKET, Key="part-copy", UploadId=upload, MultipartUpload={"Parts": named})
    equal(get("part-copy") == body + body[10:20], True, "bytes")


def managed_transfer():
    body = os.urandom(20 * MIB + 3)
    S3.upload_fileobj(io.BytesIO(body), BUCKET, "managed")
    out = io.BytesIO()
    S3.download_fileobj(BUCKET, "managed", out)
    equal(out.getvalue() == body, True, "bytes")


def presigned():
    url = S3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "signed url"}, ExpiresIn=60)
    request = urllib.request.Request(url, data=b"by url", method="PUT")
    equal(urllib.request.urlopen(request).status, 200, "put")
    url = S3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "signed url"}, ExpiresIn=60)
    equal(urllib.request.urlopen(url).read(), b"by url", "get")
    status, body = target(url.replace("signed%20url", "other"))
    equal((status, "SignatureDoesNotMatch" in body), (403, True), "another key")
    url = S3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "signed url"}, ExpiresIn=8 * 24 * 3600)
    raw_refused("AuthorizationQueryParametersError", target(url))
    url = S3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "signed url"}, ExpiresIn=1)
    time.sleep(2.5)
    raw_refused("AccessDenied", target(url), 403)


def target(url):
    parts = urllib.parse.urlsplit(url)
    return raw("GET", f"{parts.path}?{parts.query}", {"host": parts.netloc})


def wrong_credentials():
    refused("SignatureDoesNotMatch", lambda: client(secret_key="x" * 40).list_buckets(), 403)
    refused("InvalidAccessKeyId", lambda: client(access_key="NOSUCHKEY").list_buckets(), 403)
    refused("AuthorizationHeaderMalformed", lambda: client(region="mars-north-1").get_object(Bucket=BUCKET, Key="x"))
    host = urllib.parse.urlsplit(ARGS.endpoint).netloc
    raw_refused("AccessDenied", raw("GET", f"/{BUCKET}", {"host": host}), 403)
    raw_refused("InvalidRequest", raw("GET", f"/{BUCKET}", {"host": host, "authorization": "AWS AK:c2ln"}))
    headers = signed("PUT", f"/{BUCKET}/smuggled", {"content-length": "1"})
    raw_refused("AccessDenied", raw("PUT", f"/{BUCKET}/smuggled", {**headers, "x-amz-meta-extra": "unsigned"}, b"x"), 403)
    absent("smuggled")


def bodies_that_lie():
    path, body = f"/{BUCKET}/lie", b"what was announced"
    def attempt(headers, sent, payload_hash="UNSIGNED-PAYLOAD", **more):
        answer = raw("PUT", path, signed("PUT", path, headers, payload_hash), sent, **more)
        absent("lie")
        return answer
    length = {"content-length": str(len(body))}
    raw_refused("BadDigest", attempt({**length, "x-amz-checksum-crc32": "AAAAAA=="}, body))
    raw_refused("BadDigest", attempt({**length, "content-md5": base64.b64encode(bytes(16)).decode()}, body))
    raw_refused("InvalidDigest", attempt({**length, "content-md5": "nonsense"}, body))
    raw_refused("XAmzContentSHA256Mismatch", attempt(length, body, hashlib.sha256(b"other").hexdigest()))
    status, _ = attempt({"content-length": "1000"}, body, half_close=True)
    assert status in (0, 400), f"a body that ends early was answered with {status}"


def chunked_bodies_that_lie():
    path, mode = f"/{BUCKET}/chunked", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    body = os.urandom(100_000)
    right = f"x-amz-checksum-crc32:{crc32(body)}\r\n"
    def attempt(sent, decoded=len(body)):
        headers = {"content-length": str(len(sent)), "content-encoding": "aws-chunked", "x-amz-decoded-content-length": str(decoded), "x-amz-trailer": "x-amz-checksum-crc32"}
        return raw("PUT", path, signed("PUT", path, headers, mode), sent)
    raw_refused("BadDigest", attempt(chunked(body, trailer="x-amz-checksum-crc32:AAAAAA==\r\n")))
    raw_refused("MalformedTrailerError", attempt(chunked(body)))
    raw_refused("IncompleteBody", attempt(chunked(body, trailer=right), len(body) + 1))
    raw_refused("IncompleteBody", attempt(chunked(body, trailer=right), len(body) - 1))
    raw_refused("IncompleteBody", attempt(f"{len(body):x}\r\n".encode() + body + b"\r\n"))
    raw_refused("InvalidRequest", attempt(b"nonsense\r\n" + body))
    absent("chunked")
    equal(attempt(chunked(body[:50_000], body[50_000:], trailer=right))[0], 200, "two chunks")
    equal(get("chunked") == body, True, "bytes")
    head = S3.head_object(Bucket=BUCKET, Key="chunked")
    equal(head.get("ContentEncoding"), None, "the framing is not the object's encoding")


def a_bucket_is_deleted_when_empty():
    refused("BucketNotEmpty", lambda: S3.delete_bucket(Bucket=BUCKET), 409)
    for page in S3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        S3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": entry["Key"]} for entry in page.get("Contents", [])], "Quiet": True})
    S3.delete_bucket(Bucket=BUCKET)
    refused("NoSuchBucket", lambda: S3.list_objects_v2(Bucket=BUCKET), 404)


run(
    [
        buckets,
        put_and_get_of_all_sizes,
        streamed_bodies_and_all_checksums,
        metadata_and_headers,
        keys_of_every_kind,
        ranges,
        conditional_reads,
        conditional_writes,
        deletes,
        copies,
        listings,
        multipart,
        part_copies,
        managed_transfer,
        presigned,
        wrong_credentials,
        bodies_that_lie,
        chunked_bodies_that_lie,
        a_bucket_is_deleted_when_empty,
    ],
    ARGS.only,
)
print(f"boto: all passed with boto3 {boto3.__version__}")
