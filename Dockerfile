# A small image: the one program, the C library it needs, certificates; no shell, no root.
#   docker build -t pointsman .
ARG RUST_IMAGE=rust:1-bookworm
FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
RUN scripts/image-root /image

FROM scratch
COPY --from=build /image/ /
USER 65532:65532
EXPOSE 9002 9003 9090
ENTRYPOINT ["/app/epp"]
