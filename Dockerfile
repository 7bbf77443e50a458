# The same images as `cargo xtask images` makes without an engine, for those who have one:
#   docker build --target agent -t castgate.local/agent:dev .        (also: operator, cli)
FROM docker.io/library/rust:1-alpine AS build
RUN apk add --no-cache musl-dev gcc make
WORKDIR /src
COPY . .
RUN cargo build --locked --release -p castgate-agent --bin castgate-agent \
    && cargo build --locked --release -p castgate-operator --bin castgate-operator \
    && cargo build --locked --release -p castgate-cli --bin castgate \
    && mkdir -p /root-of-image/etc /root-of-image/tmp \
    && chmod 1777 /root-of-image/tmp \
    && printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' > /root-of-image/etc/passwd \
    && printf 'root:x:0:\nnonroot:x:65532:\n' > /root-of-image/etc/group

# No user: a pod says who it runs as, since a capability for another than root would need a file capability.
FROM scratch AS agent
COPY --from=build /root-of-image /
COPY --from=build /src/target/release/castgate-agent /castgate-agent
ENTRYPOINT ["/castgate-agent"]

FROM scratch AS operator
COPY --from=build /root-of-image /
COPY --from=build /src/target/release/castgate-operator /castgate-operator
USER 65532:65532
ENTRYPOINT ["/castgate-operator"]

FROM scratch AS cli
COPY --from=build /root-of-image /
COPY --from=build /src/target/release/castgate /castgate
USER 65532:65532
ENTRYPOINT ["/castgate"]
