//! The coordinator's gRPC port: Arrow Flight SQL and Conun's own actions, server and client.
