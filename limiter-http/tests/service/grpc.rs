//! Refusals as gRPC knows them; with a real client in the example programs' tests.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use limiter_core::ErrorKind;
use limiter_core::limit::Limiter;
use limiter_http::{RateLimitLayer, Target, grpc};
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{Away, World, from_user, header, hourly, through, user};

async fn refused(layer: RateLimitLayer<Empty<Bytes>>) -> (Response<String>, Status) {
    let response = through(&layer, from_user("42")).await;
    assert_eq!(
        response.status(),
        200,
        "gRPC's status stands in its own header"
    );
    assert_eq!(header(&response, "content-type"), Some("application/grpc"));
    assert_eq!(response.body(), "");
    let status = Status::from_header_map(response.headers()).unwrap();
    (response, status)
}

#[tokio::test]
async fn a_denial_is_resource_exhausted_with_the_time_to_wait() {
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1))
        .key(user)
        .refuse_with(grpc::refusal);
    through(&layer, from_user("42")).await;
    let (response, status) = refused(layer).await;
    assert_eq!(header(&response, "grpc-status"), Some("8"));
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(
        status.message(),
        "letters is limited to 1 per hour; try again in 60 minutes"
    );
    let retry = status.get_details_retry_info().expect("RetryInfo");
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(3_600)));
    assert_eq!(header(&response, "x-ratelimit-remaining"), Some("0"));
}

#[tokio::test]
async fn each_refusal_has_its_code() {
    let world = World::new();
    let grpc = |layer: RateLimitLayer| layer.refuse_with(grpc::refusal);
    let limited =
        |kind| RateLimitLayer::new(Limiter::new(Away(kind)), hourly("letters", 1)).key(user);
    let world_layer = || RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1));
    for (layer, code, waits) in [
        (limited(ErrorKind::Timeout), Code::Unavailable, true),
        (limited(ErrorKind::Foreign), Code::Internal, false),
        (
            world_layer().key(|_| Target::new(["42"]).cost(2)),
            Code::InvalidArgument,
            false,
        ),
        (
            world_layer().key(|_| None::<Target>),
            Code::Unauthenticated,
            false,
        ),
        (
            world_layer().key(|_| Target::refuse(StatusCode::FORBIDDEN)),
            Code::PermissionDenied,
            false,
        ),
    ] {
        let (_, status) = refused(grpc(layer)).await;
        assert_eq!(status.code(), code, "{status:?}");
        assert_eq!(
            status.get_details_retry_info().is_some(),
            waits,
            "{status:?}"
        );
    }
}

/// tonic's own body, of which no copy can be made, and what tonic's server tells of its peers.
#[tokio::test]
async fn tonics_own_bodies_and_peers() {
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1))
        .refuse_with(|refusal| grpc::refusal(refusal).map(|_| tonic::body::Body::empty()));
    let tcp = || TcpConnectInfo {
        local_addr: None,
        remote_addr: Some("203.0.113.9:1".parse().unwrap()),
    };
    for expected in [None, Some("8")] {
        let request = Request::builder().extension(tcp()).body(()).unwrap();
        let response = through(&layer.clone(), request).await;
        assert_eq!(header(&response, "grpc-status"), expected);
    }
    let unix = Request::builder()
        .extension(UdsConnectInfo {
            peer_addr: None,
            peer_cred: None,
        })
        .body(())
        .unwrap();
    assert_eq!(header(&through(&layer, unix).await, "grpc-status"), None);
    assert_eq!(
        world.keys(),
        ["ratelimit:letters:203.0.113.9", "ratelimit:letters:unix"]
    );
}
