//! Compiles the protobuf of the admin service and of the peer stream with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/admin.proto", "proto/peer.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    // Messages are as large as their largest kind and move often: the rare kinds that are large go on the heap.
    let large = ["hello", "welcome", "heartbeat", "promise", "propose", "in_force"];
    let build = large
        .iter()
        .fold(tonic_prost_build::configure(), |build, kind| build.boxed(format!("mizuya.peer.v1.Message.kind.{kind}")));
    build.bytes(".").compile_fds(descriptors)?;
    Ok(())
}
