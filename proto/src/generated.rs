//! The generated code, in modules nested like the proto packages, because generated types
//! name each other by relative path. Nothing outside this crate uses these paths: see the
//! re-exports in the crate root.

#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, rust_2018_idioms)]

pub mod google {
    pub mod protobuf {
        include!(concat!(env!("OUT_DIR"), "/google.protobuf.rs"));
    }
}

pub mod io {
    pub mod cloudevents {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/io.cloudevents.v1.rs"));
            include!(concat!(env!("OUT_DIR"), "/io.cloudevents.v1.serde.rs"));
        }
    }
}

pub mod messageloop {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/messageloop.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/messageloop.v1.serde.rs"));
    }
    pub mod shared {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/messageloop.shared.v1.rs"));
            include!(concat!(env!("OUT_DIR"), "/messageloop.shared.v1.serde.rs"));
        }
    }
    pub mod server {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/messageloop.server.v1.rs"));
            include!(concat!(env!("OUT_DIR"), "/messageloop.server.v1.serde.rs"));
        }
    }
    pub mod proxy {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/messageloop.proxy.v1.rs"));
            include!(concat!(env!("OUT_DIR"), "/messageloop.proxy.v1.serde.rs"));
        }
    }
}
