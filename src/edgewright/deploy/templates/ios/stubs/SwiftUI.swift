// What the sample app uses of SwiftUI and AVFoundation, declared for type checking where they are not.
import Foundation

public protocol App {
    associatedtype Body: Scene
    @MainActor var body: Body { get }
    @MainActor init()
}
extension App { public static func main() {} }
public protocol Scene {}
public protocol View {}
public struct WindowGroup<Content: View>: Scene { public init(@ViewBuilder content: () -> Content) {} }
public struct Text: View, Sendable {
    public init(_ text: String) {}
    public func font(_ font: Font) -> Text { self }
}
public enum Font: Sendable { case title, body }
public enum HorizontalAlignment { case leading }
public struct Pair: View {}
@resultBuilder public struct ViewBuilder {
    public static func buildBlock<V: View>(_ view: V) -> V { view }
    public static func buildBlock(_ a: Text, _ b: Text) -> Pair { Pair() }
}
public struct VStack<Content: View>: View {
    public init(alignment: HorizontalAlignment, @ViewBuilder content: () -> Content) {}
    public func padding() -> VStack { self }
    public func task(_ action: @escaping @MainActor @Sendable () async -> Void) -> VStack { self }
}
public protocol ObservableObject: AnyObject {}
@propertyWrapper public struct StateObject<Object: ObservableObject> {
    public let wrappedValue: Object
    public init(wrappedValue: @autoclosure () -> Object) { self.wrappedValue = wrappedValue() }
}
@propertyWrapper public struct Published<Value> {
    public var wrappedValue: Value
    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }
}
public final class CMSampleBuffer {}
public final class CVPixelBuffer {}
public enum LockFlags { case readOnly }
public let kCVPixelBufferPixelFormatTypeKey = "PixelFormatType"
public let kCVPixelFormatType_32BGRA: UInt32 = 0x4247_5241
public func CMSampleBufferGetImageBuffer(_ buffer: CMSampleBuffer) -> CVPixelBuffer? { nil }
public func CVPixelBufferLockBaseAddress(_ buffer: CVPixelBuffer, _ flags: LockFlags) {}
public func CVPixelBufferUnlockBaseAddress(_ buffer: CVPixelBuffer, _ flags: LockFlags) {}
public func CVPixelBufferGetBaseAddress(_ buffer: CVPixelBuffer) -> UnsafeMutableRawPointer? { nil }
public func CVPixelBufferGetBytesPerRow(_ buffer: CVPixelBuffer) -> Int { 0 }
public func CVPixelBufferGetHeight(_ buffer: CVPixelBuffer) -> Int { 0 }
public func CVPixelBufferGetWidth(_ buffer: CVPixelBuffer) -> Int { 0 }
public enum AVMediaType { case video }
public final class AVCaptureDevice { public static func `default`(for type: AVMediaType) -> AVCaptureDevice? { nil } }
public class AVCaptureInput {}
public class AVCaptureOutput {}
public final class AVCaptureConnection {}
public final class AVCaptureDeviceInput: AVCaptureInput { public init(device: AVCaptureDevice) throws {} }
public protocol AVCaptureVideoDataOutputSampleBufferDelegate: AnyObject {
    func captureOutput(
        _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection)
}
public final class AVCaptureVideoDataOutput: AVCaptureOutput {
    public override init() {}
    public var videoSettings: [String: Any] = [:]
    public var alwaysDiscardsLateVideoFrames = false
    public func setSampleBufferDelegate(_ delegate: AVCaptureVideoDataOutputSampleBufferDelegate?, queue: DispatchQueue?) {}
}
public final class AVCaptureSession {
    public init() {}
    public func canAddInput(_ input: AVCaptureInput) -> Bool { true }
    public func canAddOutput(_ output: AVCaptureOutput) -> Bool { true }
    public func addInput(_ input: AVCaptureInput) {}
    public func addOutput(_ output: AVCaptureOutput) {}
    public func startRunning() {}
}
