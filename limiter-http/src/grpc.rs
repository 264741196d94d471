//! Refusals as gRPC knows them (feature `grpc`).

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Empty;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::problem::{Problem, ProblemType};
use crate::refusal::Refusal;

/// A refusal as a gRPC response without a body: its status and message stand in the headers. For
/// [`RateLimitLayer::refuse_with`](crate::RateLimitLayer::refuse_with).
///
/// | Problem | Code |
/// |---|---|
/// | [`RateLimitExceeded`](ProblemType::RateLimitExceeded) | 8, `RESOURCE_EXHAUSTED` |
/// | [`CostAboveLimit`](ProblemType::CostAboveLimit) | 3, `INVALID_ARGUMENT` |
/// | [`LimiterUnavailable`](ProblemType::LimiterUnavailable), [`TemporaryReducedCapacity`](ProblemType::TemporaryReducedCapacity) | 14, `UNAVAILABLE` |
/// | [`UnknownClient`](ProblemType::UnknownClient) | 7, `PERMISSION_DENIED`, if it was refused with 403; else 16, `UNAUTHENTICATED` |
/// | [`LimiterError`](ProblemType::LimiterError) | 13, `INTERNAL` |
///
/// Where waiting helps the details hold a `google.rpc.RetryInfo` with the time to wait, in whole seconds, rounded up.
///
/// ```
/// # use limiter_core::limit::{Limiter, Policy};
/// # use limiter_http::{RateLimitLayer, grpc};
/// # use {bytes::Bytes, http_body_util::Empty};
/// # fn example(limiter: Limiter, policy: Policy) -> RateLimitLayer<Empty<Bytes>> {
/// // tonic::transport::Server::builder().layer(...)
/// RateLimitLayer::new(limiter, policy).refuse_with(grpc::refusal)
/// # }
/// ```
pub fn refusal(refusal: &Refusal<'_>) -> Response<Empty<Bytes>> {
    status(refusal.problem).into_http()
}

fn status(problem: &Problem<'_>) -> Status {
    let code = match problem.problem_type() {
        ProblemType::RateLimitExceeded => Code::ResourceExhausted,
        ProblemType::CostAboveLimit => Code::InvalidArgument,
        ProblemType::LimiterUnavailable | ProblemType::TemporaryReducedCapacity => {
            Code::Unavailable
        }
        ProblemType::UnknownClient if problem.status() == StatusCode::FORBIDDEN => {
            Code::PermissionDenied
        }
        ProblemType::UnknownClient => Code::Unauthenticated,
        ProblemType::LimiterError => Code::Internal,
    };
    match problem.retry_after_secs() {
        Some(seconds) => {
            let wait = Some(Duration::from_secs(seconds));
            let details = ErrorDetails::with_retry_info(wait);
            Status::with_error_details(code, problem.detail(), details)
        }
        None => Status::new(code, problem.detail()),
    }
}
