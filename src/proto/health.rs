//! `grpc.health.v1`: the messages of gRPC's health protocol.

/// Asks for the health of one service.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HealthCheckRequest {
    /// Its name; empty means the server as a whole.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// The health of one service.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HealthCheckResponse {
    /// The status.
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}

/// What a service can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ServingStatus {
    /// Not known.
    Unknown = 0,
    /// It answers.
    Serving = 1,
    /// It does not.
    NotServing = 2,
    /// There is no such service; only in answers of `Watch`, and in our own of `Check` where the reference has it so.
    ServiceUnknown = 3,
}

/// Asks for the health of all services.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HealthListRequest {}

/// The health of all services.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HealthListResponse {
    /// By name.
    #[prost(btree_map = "string, message", tag = "1")]
    pub statuses: std::collections::BTreeMap<String, HealthCheckResponse>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn the_wire_form_is_the_published_one() {
        let request = HealthCheckRequest { service: "a".to_owned() };
        assert_eq!(request.encode_to_vec(), [0x0a, 1, b'a']);
        let response = HealthCheckResponse { status: ServingStatus::NotServing.into() };
        assert_eq!(response.encode_to_vec(), [0x08, 2]);
        let list = HealthListResponse { statuses: [("a".to_owned(), response)].into() };
        assert_eq!(list.encode_to_vec(), [0x0a, 7, 0x0a, 1, b'a', 0x12, 2, 0x08, 2]);
    }
}
