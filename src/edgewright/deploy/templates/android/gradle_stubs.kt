// What the Gradle scripts use of Gradle's and the Android plugin's DSL, declared for type checking where neither is.
package gradle

import java.io.File

open class Library

class Plugin

class Repositories {
    fun google() = Unit

    fun mavenCentral() = Unit

    fun gradlePluginPortal() = Unit
}

class Setting<T> {
    fun set(value: T): Unit = TODO(value.toString())
}

enum class RepositoriesMode { FAIL_ON_PROJECT_REPOS }

class PluginManagement {
    fun repositories(block: Repositories.() -> Unit) = Repositories().block()
}

class DependencyManagement {
    val repositoriesMode = Setting<RepositoriesMode>()

    fun repositories(block: Repositories.() -> Unit) = Repositories().block()
}

class RootProject {
    var name = ""
}

class SettingsScript {
    val rootProject = RootProject()

    fun pluginManagement(block: PluginManagement.() -> Unit) = PluginManagement().block()

    fun dependencyResolutionManagement(block: DependencyManagement.() -> Unit) = DependencyManagement().block()

    fun include(vararg paths: String): Unit = TODO(paths.joinToString())
}

class PluginRequest {
    infix fun apply(isApplied: Boolean): Unit = TODO(isApplied.toString())
}

class Plugins {
    fun alias(plugin: Plugin): PluginRequest = TODO(plugin.toString())
}

enum class JavaVersion { VERSION_17 }

class CompileOptions {
    var sourceCompatibility = JavaVersion.VERSION_17
    var targetCompatibility = JavaVersion.VERSION_17
}

class Ndk {
    val abiFilters: MutableSet<String> = mutableSetOf()
}

open class DefaultConfig {
    var minSdk: Int? = null
    var testInstrumentationRunner: String? = null

    fun ndk(block: Ndk.() -> Unit) = Ndk().block()
}

class ApplicationConfig : DefaultConfig() {
    var applicationId: String? = null
    var targetSdk: Int? = null
    var versionCode: Int? = null
    var versionName: String? = null
}

class LibraryConfig : DefaultConfig() {
    fun consumerProguardFiles(vararg files: Any): Unit = TODO(files.joinToString())
}

class BuildType {
    var isMinifyEnabled = false
    var isShrinkResources = false

    fun proguardFiles(vararg files: Any): Unit = TODO(files.joinToString())
}

class BuildTypes {
    fun release(block: BuildType.() -> Unit) = BuildType().block()
}

class Cmake {
    var path: File? = null
    var version: String? = null
}

class NativeBuild {
    fun cmake(block: Cmake.() -> Unit) = Cmake().block()
}

class AndroidResources {
    val noCompress: MutableCollection<String> = mutableListOf()
}

open class Android {
    var namespace: String? = null
    var compileSdk: Int? = null
    var ndkVersion = ""

    fun buildTypes(block: BuildTypes.() -> Unit) = BuildTypes().block()

    fun externalNativeBuild(block: NativeBuild.() -> Unit) = NativeBuild().block()

    fun compileOptions(block: CompileOptions.() -> Unit) = CompileOptions().block()

    fun androidResources(block: AndroidResources.() -> Unit) = AndroidResources().block()

    fun getDefaultProguardFile(name: String): File = File(name)
}

class AndroidApplication : Android() {
    fun defaultConfig(block: ApplicationConfig.() -> Unit) = ApplicationConfig().block()
}

class AndroidLibrary : Android() {
    fun defaultConfig(block: LibraryConfig.() -> Unit) = LibraryConfig().block()
}

class Project

class Dependencies {
    fun api(library: Library): Unit = TODO(library.toString())

    fun implementation(library: Library): Unit = TODO(library.toString())

    fun implementation(project: Project): Unit = TODO(project.toString())

    fun androidTestImplementation(library: Library): Unit = TODO(library.toString())

    fun project(path: String): Project = TODO(path)
}

open class BuildScript {
    val libs = Catalog()

    fun plugins(block: Plugins.() -> Unit) = Plugins().block()

    fun dependencies(block: Dependencies.() -> Unit) = Dependencies().block()

    fun file(path: String): File = File(path)
}

class ApplicationScript : BuildScript() {
    fun android(block: AndroidApplication.() -> Unit) = AndroidApplication().block()
}

class LibraryScript : BuildScript() {
    fun android(block: AndroidLibrary.() -> Unit) = AndroidLibrary().block()
}
